//! Clients that request much and read little: their pending responses take a bounded amount of
//! memory.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use sqlx::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::{Server, dummy};

/// Number of tasks with the largest possible results. One page can contain all of them.
const FAT_TASKS: usize = 64;
const DO_NOT_READ: usize = 60;
const TRICKLE: usize = 20;
/// Limit of the server's peak memory in KiB.
const BOUND: u64 = 400 * 1024;
/// After this time without a response, no more will come until others have read.
const QUIET: Duration = Duration::from_secs(5);

/// Starts a server with large results in its database.
async fn fat_server() -> Server {
    let mut server = Server::start(&[]);
    for _ in 0..FAT_TASKS {
        server.submit(dummy(0.0)).await;
    }
    server.until("/tasks?status=pending,running", |tasks| tasks == &serde_json::json!([])).await;
    server.kill();
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(server.folder().join("tasks.db"));
    let mut database = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    // 1 MiB of JSON, less the few bytes around the text.
    let fatten = "UPDATE tasks SET result = json_object('text', hex(zeroblob(524200)))";
    sqlx::query(fatten).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    server.restart(&[]);
    server
}

/// A client with a small receive buffer that has requested all of it.
async fn asks_for_all(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address().parse().unwrap()).await.unwrap();
    let request = format!("GET /tasks?limit=1000 HTTP/1.1\r\nHost: {}\r\n\r\n", server.address());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads a few KB a second until the server closes the connection.
async fn trickle(mut stream: TcpStream) {
    let mut some = [0; 512];
    while let Ok(1..) = stream.read(&mut some).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn readers_who_do_not_read_take_a_bounded_amount_of_memory() {
    let server = fat_server().await;
    if server.peak_memory().is_none() {
        return crate::common::skips::skip(
            "this system does not tell how much memory a process had",
        );
    }
    let check = || {
        let peak = server.peak_memory().unwrap();
        assert!(peak < BOUND, "the server took {peak} KiB, expected less than {BOUND}");
        peak
    };
    let mut waiting = Vec::new();
    for _ in 0..DO_NOT_READ {
        waiting.push(asks_for_all(&server).await);
        check();
    }
    for _ in 0..TRICKLE {
        tokio::spawn(trickle(asks_for_all(&server).await));
        check();
    }
    // A response takes its full memory once it has begun.
    let mut answers: FuturesUnordered<_> = waiting.iter().map(TcpStream::readable).collect();
    while let Ok(Some(_)) = tokio::time::timeout(QUIET, answers.next()).await {
        check();
    }
    assert_eq!(server.get("/health/live").await.status, 200);
    println!("peak memory: {} KiB", check());
}
