//! Follower of one task: reads its event stream, reconnecting when it breaks, or polls servers without
//! streams.

use std::mem::take;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

use super::client::{Client, Request};
use super::exit::{Exit, Failure};
use super::record::Record;

/// Pause between attempts to reconnect.
const RECONNECT: Duration = Duration::from_secs(1);
/// Seconds that the server holds a poll, and thus the delay of progress.
const POLL_WAIT: u32 = 2;
/// Pause between polls, since a server that shuts down does not hold them.
const POLL_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) enum Update {
    /// Current state of the task.
    State(Box<Record>),
    /// The connection broke.
    Lost,
    /// The connection was restored.
    Back,
}

/// Sends updates about a task until it has ended, and returns its final record.
///
/// # Errors
/// If the server is unreachable at first, or rejects a request.
pub(super) async fn follow(
    client: Client,
    id: String,
    updates: UnboundedSender<Update>,
) -> Result<Record, Failure> {
    let last_event = String::new();
    Follower { client, id, updates, last_event, reached: false, lost: false }.run().await
}

struct Follower {
    client: Client,
    id: String,
    updates: UnboundedSender<Update>,
    /// Id of the last event, from which the stream resumes.
    last_event: String,
    /// The server has responded at least once.
    reached: bool,
    /// `Lost` was sent and `Back` was not yet.
    lost: bool,
}

/// End of a stream or of polling.
enum Ending {
    Final(Box<Record>),
    /// The connection broke.
    Broken,
    /// The server does not stream.
    NoStream,
}

impl Follower {
    async fn run(mut self) -> Result<Record, Failure> {
        let mut streams = true;
        loop {
            let ending = if streams { self.stream().await } else { self.poll().await };
            match ending {
                Ok(Ending::Final(record)) => return Ok(*record),
                Ok(Ending::NoStream) => {
                    streams = false;
                    continue;
                }
                Ok(Ending::Broken) => {}
                Err(failure) if self.reached && is_temporary(&failure) => {}
                Err(failure) => {
                    let message = format!("{}: {}", self.id, failure.message);
                    return Err(Failure { message, ..failure });
                }
            }
            if !self.lost {
                self.lost = true;
                self.send(Update::Lost);
            }
            sleep(RECONNECT).await;
        }
    }

    async fn stream(&mut self) -> Result<Ending, Failure> {
        let mut request = Request::get(format!("/tasks/{}/events", self.id));
        if !self.last_event.is_empty() {
            request = request.header("last-event-id", &self.last_event);
        }
        let response = match self.client.send(request).await {
            // Either the task or the route is unknown: a poll finds out which.
            Err(failure) if failure.exit == Exit::Data => return Ok(Ending::NoStream),
            response => response?,
        };
        // `last_event` was the final one.
        if response.status() == StatusCode::NO_CONTENT {
            return self.get("").await.map(|record| Ending::Final(Box::new(record)));
        }
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Ok(Ending::NoStream);
        }
        self.connected();
        self.read(response).await
    }

    async fn read(&mut self, response: Response<Incoming>) -> Result<Ending, Failure> {
        let mut parser = Parser::default();
        let mut body = response.into_body();
        while let Ok(Some(part)) = self.client.part(&mut body).await {
            parser.buffer.extend_from_slice(&part);
            while let Some(event) = parser.next() {
                if let Some(id) = event.id {
                    self.last_event = id;
                }
                // `reset` carries no task; the current state follows it.
                if !["state", "progress"].contains(&event.name.as_str()) {
                    continue;
                }
                let record = Box::new(Record::parse(&event.data)?);
                self.send(Update::State(record.clone()));
                if record.task.exit().is_some() {
                    return Ok(Ending::Final(record));
                }
            }
        }
        Ok(Ending::Broken)
    }

    async fn poll(&mut self) -> Result<Ending, Failure> {
        loop {
            let record = self.get(&format!("?wait={POLL_WAIT}")).await?;
            if record.task.exit().is_some() {
                return Ok(Ending::Final(Box::new(record)));
            }
            sleep(POLL_PAUSE).await;
        }
    }

    async fn get(&mut self, query: &str) -> Result<Record, Failure> {
        let json = self.client.json(Request::get(format!("/tasks/{}{query}", self.id))).await?;
        let record = Record::parse(&json)?;
        self.connected();
        self.send(Update::State(Box::new(record.clone())));
        Ok(record)
    }

    fn connected(&mut self) {
        self.reached = true;
        if take(&mut self.lost) {
            self.send(Update::Back);
        }
    }

    fn send(&self, update: Update) {
        // Fails only when the program is about to exit.
        let _ = self.updates.send(update);
    }
}

/// Returns whether a failure may pass when the server is back.
fn is_temporary(failure: &Failure) -> bool {
    [Exit::Unavailable, Exit::TryLater, Exit::Internal].contains(&failure.exit)
}

/// Parser of Server-Sent Events, as in the section of that name in the HTML standard.
#[derive(Default)]
struct Parser {
    buffer: Vec<u8>,
    event: Event,
}

#[derive(Default)]
struct Event {
    id: Option<String>,
    name: String,
    data: String,
}

impl Parser {
    /// Returns the next complete event in the buffer.
    fn next(&mut self) -> Option<Event> {
        loop {
            let end = self.buffer.iter().position(|&byte| byte == b'\n')?;
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                let event = take(&mut self.event);
                // A block without data is not an event.
                if event.data.is_empty() {
                    continue;
                }
                return Some(event);
            }
            // Comments have an empty field name and are skipped like unknown fields.
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            let Event { id, name, data } = &mut self.event;
            match field {
                "id" => *id = Some(value.to_owned()),
                "event" => value.clone_into(name),
                "data" if data.is_empty() => value.clone_into(data),
                "data" => data.extend(["\n", value]),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_parsed_across_chunk_boundaries() {
        let text = b"retry: 1000\n\n: keep\r\n\nid: 1\r\nevent:state\r\ndata: {\r\ndata: }\r\n\r\nevent: reset\ndata\n\nid: 2\nevent: progress\ndata: x\n\n";
        for cut in 0..text.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                parser.buffer.extend_from_slice(part);
                while let Some(Event { id, name, data }) = parser.next() {
                    events.push(format!("{} {name} {data}", id.unwrap_or_default()));
                }
            }
            assert_eq!(events, ["1 state {\n}", "2 progress x"], "cut at {cut}");
        }
    }
}
