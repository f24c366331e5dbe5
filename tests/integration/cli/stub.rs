//! Replacements for a server, and a proxy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Serves responses that `answer` makes of the first line and the body of a request; returns the
/// URL.
pub(crate) fn answering(answer: impl Fn(&str, &str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = BufReader::new(client.unwrap());
            let mut first = String::new();
            client.read_line(&mut first).unwrap();
            let mut line = String::new();
            let mut length = 0;
            while client.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim_end().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            client.read_exact(&mut body).unwrap();
            let answer = answer(first.trim_end(), str::from_utf8(&body).unwrap());
            // The client may have disconnected.
            let _ = client.get_mut().write_all(answer.as_bytes());
        }
    });
    url
}

/// A complete HTTP response.
pub(crate) fn response(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A proxy with a fixed address for a server whose address changes.
pub(crate) struct Forwarder {
    pub(crate) url: String,
    target: Arc<Mutex<String>>,
}

impl Forwarder {
    pub(crate) fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let target = Arc::new(Mutex::new(address.to_owned()));
        let current = Arc::clone(&target);
        thread::spawn(move || {
            for client in listener.incoming() {
                let address = current.lock().unwrap().clone();
                // Closes the connection if no server listens.
                if let (Ok(client), Ok(server)) = (client, TcpStream::connect(address)) {
                    pump(client.try_clone().unwrap(), server.try_clone().unwrap());
                    pump(server, client);
                }
            }
        });
        Self { url, target }
    }

    pub(crate) fn moved(&self, address: &str) {
        *self.target.lock().unwrap() = address.to_owned();
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        // The other end may be closed already.
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
