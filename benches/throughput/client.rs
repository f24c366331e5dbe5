//! A keep-alive connection that sends prepared requests and parses as little of a response as
//! possible.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const CONTENT_LENGTH: &[u8] = b"content-length:";

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

/// A response without its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Path and query of the next page.
    pub(crate) next: Option<String>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, answer: Vec::with_capacity(128 * 1024) }
    }

    /// Sends a request; returns the body of the response, which must be a 200.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> &[u8] {
        let head = self.receive(request).await;
        assert!(
            status(&self.answer) == b"200",
            "{}\nwas answered:\n{}",
            String::from_utf8_lossy(request),
            String::from_utf8_lossy(&self.answer),
        );
        &self.answer[head..]
    }

    /// Sends a request; returns the relevant parts of any response.
    pub(crate) async fn answer(&mut self, request: &[u8]) -> Answer {
        let head = self.receive(request).await;
        let head = std::str::from_utf8(&self.answer[..head]).unwrap();
        let link = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("link").then_some(value)
        });
        let next = link.and_then(|link| {
            let target = link.split_once(">; rel=\"next\"")?.0;
            Some(target[target.find("/tasks")?..].to_owned())
        });
        let status = std::str::from_utf8(status(&self.answer)).unwrap();
        Answer { status: status.parse().unwrap(), next }
    }

    /// Sends a request and reads the whole response; returns the offset of its body.
    async fn receive(&mut self, request: &[u8]) -> usize {
        self.stream.write_all(request).await.unwrap();
        self.answer.clear();
        let head = loop {
            self.read().await;
            let mut windows = self.answer.windows(END_OF_HEAD.len());
            if let Some(end) = windows.position(|window| window == END_OF_HEAD) {
                break end + END_OF_HEAD.len();
            }
        };
        let end = head + content_length(&self.answer[..head]);
        while self.answer.len() < end {
            self.read().await;
        }
        assert_eq!(self.answer.len(), end, "more than one answer");
        head
    }

    /// Sends a `GET` of this path and query; returns the body.
    pub(crate) async fn get(&mut self, path: &str) -> String {
        let request = get(path);
        String::from_utf8(self.exchange(&request).await.to_vec()).unwrap()
    }

    async fn read(&mut self) {
        let count = self.stream.read_buf(&mut self.answer).await.unwrap();
        assert!(count > 0, "the server closed the connection");
    }
}

/// Bytes of a `GET`.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// Bytes of a `POST /tasks`.
pub(crate) fn post_task(body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn status(answer: &[u8]) -> &[u8] {
    answer.get(9..12).unwrap_or_default()
}

fn content_length(head: &[u8]) -> usize {
    let value = head.split(|&byte| byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(CONTENT_LENGTH.len())?;
        name.eq_ignore_ascii_case(CONTENT_LENGTH).then_some(value)
    });
    let value = value.and_then(|value| std::str::from_utf8(value).ok());
    value.and_then(|value| value.trim().parse().ok()).expect("an answer without a length")
}
