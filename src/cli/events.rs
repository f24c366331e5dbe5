//! Follows one task to its end: by its event stream, which is opened again whenever it breaks, or by
//! asking again and again where there is no such stream.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

use super::client::{Client, Request};
use super::exit::{Exit, Failure};
use super::record::Record;

/// Between two tries to reach a server that has gone away.
const RECONNECT: Duration = Duration::from_secs(1);
/// How long the server holds a poll, in seconds, so that progress is seen that often.
const POLL_WAIT: u32 = 2;
/// Between two polls; a server that is shutting down does not hold them.
const POLL_PAUSE: Duration = Duration::from_millis(500);

/// What is learnt of a task.
#[derive(Debug)]
pub(super) enum News {
    /// How it stands now.
    State(Box<Record>),
    /// The connection to the server broke.
    Lost,
    /// It is there again.
    Back,
}

/// Reports all that happens to a task until it has ended; returns how it ended.
///
/// # Errors
/// If the server cannot be reached at first, or refuses at any time.
pub(super) async fn follow(
    client: Client,
    id: String,
    tell: UnboundedSender<News>,
) -> Result<Record, Failure> {
    Follower { client, id, tell, last_event: String::new(), reached: false, lost: false }
        .run()
        .await
}

struct Follower {
    client: Client,
    id: String,
    tell: UnboundedSender<News>,
    /// The id of the event that was seen last.
    last_event: String,
    /// Whether the server has answered at all.
    reached: bool,
    lost: bool,
}

/// How a try to follow the task went, where it was no failure.
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
            let tried = if streams { self.stream().await } else { self.poll().await };
            match tried {
                Ok(Ending::Final(record)) => return Ok(*record),
                Ok(Ending::NoStream) => {
                    streams = false;
                    continue;
                }
                Ok(Ending::Broken) => {}
                Err(failure) if self.reached && is_passing(&failure) => {}
                Err(failure) => {
                    let message = format!("{}: {}", self.id, failure.message);
                    return Err(Failure { message, ..failure });
                }
            }
            if !self.lost {
                self.lost = true;
                self.say(News::Lost);
            }
            sleep(RECONNECT).await;
        }
    }

    /// Reads the event stream up to the end of the task.
    async fn stream(&mut self) -> Result<Ending, Failure> {
        let mut request = Request::get(format!("/tasks/{}/events", self.id));
        if !self.last_event.is_empty() {
            request = request.header("last-event-id", &self.last_event);
        }
        let response = match self.client.send(request).await {
            // No such task, or no such route: a poll will tell.
            Err(failure) if failure.exit == Exit::Data => return Ok(Ending::NoStream),
            response => response?,
        };
        if response.status() == StatusCode::NO_CONTENT {
            return self.ask("").await.map(|record| Ending::Final(Box::new(record)));
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
                // `reset` tells no task: how it stands comes next.
                if !["state", "progress"].contains(&event.name.as_str()) {
                    continue;
                }
                let record = Record::parse(&event.data)?;
                if record.exit().is_some() {
                    self.say(News::State(Box::new(record.clone())));
                    return Ok(Ending::Final(Box::new(record)));
                }
                self.say(News::State(Box::new(record)));
            }
        }
        Ok(Ending::Broken)
    }

    /// Asks until the task has ended.
    async fn poll(&mut self) -> Result<Ending, Failure> {
        loop {
            let record = self.ask(&format!("?wait={POLL_WAIT}")).await?;
            if record.exit().is_some() {
                return Ok(Ending::Final(Box::new(record)));
            }
            sleep(POLL_PAUSE).await;
        }
    }

    async fn ask(&mut self, query: &str) -> Result<Record, Failure> {
        let json = self.client.json(Request::get(format!("/tasks/{}{query}", self.id))).await?;
        let record = Record::parse(&json)?;
        self.connected();
        self.say(News::State(Box::new(record.clone())));
        Ok(record)
    }

    fn connected(&mut self) {
        self.reached = true;
        if self.lost {
            self.lost = false;
            self.say(News::Back);
        }
    }

    fn say(&self, news: News) {
        // Nobody listens any more when the whole is about to end.
        let _ = self.tell.send(news);
    }
}

/// Whether a failure goes away when the server is there again.
fn is_passing(failure: &Failure) -> bool {
    [Exit::Unavailable, Exit::TryLater, Exit::Internal].contains(&failure.exit)
}

/// Takes a stream of Server-Sent Events apart.
/// Source: the HTML standard, section "Server-sent events".
#[derive(Default)]
struct Parser {
    buffer: Vec<u8>,
    id: Option<String>,
    name: String,
    data: String,
}

struct Event {
    id: Option<String>,
    name: String,
    data: String,
}

impl Parser {
    /// The next event that is there as a whole.
    fn next(&mut self) -> Option<Event> {
        loop {
            let end = self.buffer.iter().position(|&byte| byte == b'\n')?;
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                let event = Event {
                    id: self.id.take(),
                    name: std::mem::take(&mut self.name),
                    data: std::mem::take(&mut self.data),
                };
                // A block without data is no event.
                if event.data.is_empty() {
                    continue;
                }
                return Some(event);
            }
            // A comment has no name, and is nothing that is known here.
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => self.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut self.name),
                "data" if self.data.is_empty() => value.clone_into(&mut self.data),
                "data" => self.data.extend(["\n", value]),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_stream_is_cut() {
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
