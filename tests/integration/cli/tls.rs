//! A server behind a TLS proxy.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::cli::program::{Ended, ask_at};
use crate::cli::stub::response;
use crate::common;

#[test]
fn https_is_checked_against_trusted_certificates() {
    let folder = TempDir::new().unwrap();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("trusted.pem"), cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let port = proxy(Arc::new(config));
    let url = format!("https://localhost:{port}");

    let stranger = ask_at(&url, folder.path(), &["list"]).with(69);
    assert!(stranger.stderr.contains("certificate"), "{stranger}");
    let list = |url: &str| -> Ended {
        let env = [("TASK_SERVER_URL", url), ("SSL_CERT_FILE", "trusted.pem")];
        common::run(folder.path(), &["list", "--json"], &env).into()
    };
    assert_eq!(list(&url).with(0).stdout, "[]\n");
    let misnamed = list(&format!("https://127.0.0.1:{port}")).with(69);
    assert!(misnamed.stderr.contains("not valid for name"), "{misnamed}");
}

/// Answers every request with an empty list; returns its port.
fn proxy(config: Arc<ServerConfig>) -> u16 {
    // Listens on one of the addresses of `localhost`; clients try all.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut client = BufReader::new(StreamOwned::new(connection, client.unwrap()));
            let mut line = String::new();
            // Fails if the client rejects the certificate.
            while client.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            let answer = response("200 OK", "application/json", "[]");
            let _ = client.get_mut().write_all(answer.as_bytes());
            client.get_mut().conn.send_close_notify();
            let _ = client.get_mut().flush();
        }
    });
    port
}
