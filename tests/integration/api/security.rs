//! Access by pages of other origins and by other hosts.

use reqwest::Method;
use tempfile::TempDir;

use crate::common::{Server, dummy, endless, refusal};

#[test]
fn a_server_does_not_listen_to_the_world_without_a_key() {
    let folder = TempDir::new().unwrap();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let (code, said) = refusal(folder.path(), &["--listen", address], &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("--allow-unauthenticated"), "{said}");
        assert!(said.contains("--api-key-file"), "{said}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let server = Server::start(&[]);
    let running = server.submit(endless()).await;
    let from = |origin: &'static str| {
        server
            .request(Method::POST, "/tasks/cancel?status=pending,running")
            .header("origin", origin)
    };
    for origin in ["https://evil.example", "null", "http://localhost:3001"] {
        let answer = server.send(from(origin)).await;
        assert!(answer.error(403).contains("--cors-origin"), "{answer}");
    }
    assert_ne!(server.task(&running).await["status"], "cancelled");
    let own = format!("http://{}", server.address());
    let request =
        server.request(Method::DELETE, &format!("/tasks/{running}")).header("origin", own);
    assert_eq!(server.send(request).await.status, 200);
    assert_eq!(server.send(from("http://localhost:3000")).await.status, 200);
}

#[tokio::test]
async fn a_path_longer_than_any_is_refused_even_if_it_is_not_used() {
    let server = Server::start(&[]);
    let mut body = dummy(0.0);
    body["input_file_path"] = "x".repeat(5000).into();
    let fault = server.post("/tasks", &body).await.only_fault();
    assert!(fault.contains("4096"), "{fault}");
}
