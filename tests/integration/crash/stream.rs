//! Server-Sent Events as a client reads them.

use reqwest::{Client, Response};
use serde_json::Value;

use crate::crash::connection::NoAnswer;

/// An open event stream.
pub(crate) struct EventStream {
    response: Response,
    buffer: String,
}

/// One event. Messages without data are skipped.
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

impl EventStream {
    /// Opens a stream, after the event `last_id` if given. Returns `Err` with the response if the
    /// server opens none.
    pub(crate) async fn open(
        client: &Client,
        url: String,
        last_id: Option<&str>,
    ) -> Result<Result<Self, (u16, Value)>, NoAnswer> {
        let mut request = client.get(url);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.map_err(|_| NoAnswer)?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(Ok(Self { response, buffer: String::new() }));
        }
        let body = response.bytes().await.map_err(|_| NoAnswer)?;
        Ok(Err((status, serde_json::from_slice(&body).unwrap_or_default())))
    }

    /// Next event; `None` once the server has ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, NoAnswer> {
        loop {
            while let Some((message, rest)) = self.buffer.split_once("\n\n") {
                let event = parse(message);
                self.buffer = rest.to_owned();
                if event.is_some() {
                    return Ok(event);
                }
            }
            match self.response.chunk().await.map_err(|_| NoAnswer)? {
                // The server sends whole messages, so a chunk never splits a character.
                Some(chunk) => self.buffer += str::from_utf8(&chunk).unwrap(),
                None => return Ok(None),
            }
        }
    }
}

fn parse(message: &str) -> Option<Event> {
    let field = |name: &str| {
        let mut lines = message.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
    };
    let data = serde_json::from_str(&field("data")?).unwrap();
    Some(Event { name: field("event").unwrap_or_default(), id: field("id"), data })
}
