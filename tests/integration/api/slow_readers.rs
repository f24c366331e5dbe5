//! Clients that request large responses and do not read them.

use std::time::Duration;

use reqwest::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::{Server, give_history, run_sql};

/// Number of clients that do not read.
const CLIENTS: usize = 60;
/// Memory limit: the response budget of 64 MiB, the page each of two scanners is reading, and the
/// rest of the program (about 40 MiB in a debug build).
const MAX_MEMORY_KIB: u64 = 220 * 1024;

/// Restarts a server with tasks whose results have 1 MiB each.
async fn give_large_results(server: &mut Server) {
    give_history(server, 40).await;
    server.kill();
    let result = "UPDATE tasks SET result = json_object('text', hex(zeroblob(524000)))";
    run_sql(&server.folder().join("tasks.db"), &[result]).await;
    server.restart(&[]);
}

#[tokio::test]
async fn clients_that_do_not_read_do_not_fill_the_memory() {
    let mut server = Server::start(&[]);
    give_large_results(&mut server).await;
    let task = server.get("/tasks?limit=1").await.body[0]["task_id"].as_str().unwrap().to_owned();
    let list = "GET /tasks?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let get = format!("GET /tasks/{task} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut clients = Vec::new();
    for request in [list, &get] {
        for _ in 0..CLIENTS {
            let mut client = TcpStream::connect(server.address()).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            clients.push(client);
        }
    }
    // All have their response, or its first bytes.
    for client in &clients {
        client.readable().await.unwrap();
    }
    for path in ["/tasks?limit=1000", "/tasks?limit=1", &format!("/tasks/{task}")] {
        let answer = server.get(path).await;
        if answer.status != 200 {
            assert!(answer.error(503).contains("memory for responses"), "{answer}");
            assert_eq!(answer.header("retry-after"), "1");
        }
    }
    assert_eq!(server.get("/health/ready").await.status, 200);
    if let Some(peak) = server.peak_memory() {
        println!("peak memory: {} MiB", peak / 1024);
        assert!(peak < MAX_MEMORY_KIB, "{} MiB", peak / 1024);
    }
    // Their memory is free again after they have gone.
    drop(clients);
    let request = || server.request(Method::GET, "/tasks?limit=1000");
    let mut answer = server.send(request()).await;
    while answer.status == 503 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = server.send(request()).await;
    }
    assert_eq!(answer.status, 200);
    let length: usize = answer.header("content-length").parse().unwrap();
    assert!(length > 4 * 1024 * 1024 && length == answer.text.len(), "{length}");
}
