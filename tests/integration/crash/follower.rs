//! Reads the event stream of all tasks through every life of the server, and resumes it with
//! `Last-Event-ID` after each disconnect.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use reqwest::Client;
use serde_json::Value;

use crate::crash::connection::NoAnswer;
use crate::crash::ledger::{Ledger, is_final, text, without_retry};
use crate::crash::stream::EventStream;

/// Mark of the last task of a database. Its end is the last event read.
pub(crate) const LAST: &str = "last";

pub(crate) struct Follower {
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    last_id: Option<String>,
    /// Latest record of each task.
    seen: HashMap<String, Value>,
    pub(crate) events: usize,
    pub(crate) resumptions: usize,
}

impl Follower {
    pub(crate) fn new(ledger: &Arc<Mutex<Ledger>>) -> Self {
        Self {
            client: Client::builder().no_proxy().build().unwrap(),
            ledger: Arc::clone(ledger),
            last_id: None,
            seen: HashMap::new(),
            events: 0,
            resumptions: 0,
        }
    }

    /// Reads until the server is dead or the last task has ended. Disconnects and resumes after
    /// each of these numbers of events.
    pub(crate) async fn run(mut self, address: String, hang_ups: Vec<usize>) -> Self {
        let mut hang_ups = hang_ups.into_iter();
        // Event ids of an earlier server process are unknown to this one.
        let unknown = self.last_id.clone();
        while let Ok(true) = self.read(&address, unknown.as_deref(), hang_ups.next()).await {}
        self
    }

    /// Tasks whose end was not seen.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let open = self.seen.iter().filter(|(_, task)| !is_final(task));
        open.map(|(id, _)| id.clone()).collect()
    }

    /// Reads one stream. Returns false if this server has no more events to read.
    async fn read(
        &mut self,
        address: &str,
        unknown: Option<&str>,
        most: Option<usize>,
    ) -> Result<bool, NoAnswer> {
        // Includes all tasks of a database, so that a `reset` omits none.
        let url = format!("http://{address}/events?limit=1000");
        let last_id = self.last_id.clone();
        let mut stream = match EventStream::open(&self.client, url, last_id.as_deref()).await? {
            Ok(stream) => stream,
            Err((status, body)) => {
                self.ledger.lock().unwrap().unavailable("the event stream", "all", status, &body);
                return Ok(false);
            }
        };
        self.resumptions += usize::from(last_id.is_some());
        let expects_reset = last_id.is_some() && last_id.as_deref() == unknown;
        let mut read = 0;
        while most.is_none_or(|most| read < most) {
            let Some(event) = stream.next().await? else { break };
            let is_reset = event.name == "reset";
            if is_reset != (read == 0 && expects_reset) {
                let expected = if expects_reset { "a reset first" } else { "no reset" };
                let text =
                    format!("a stream after {last_id:?}: `{}`, expected {expected}", event.name);
                self.ledger.lock().unwrap().violation(text);
            }
            read += 1;
            if is_reset {
                continue;
            }
            if event.id.is_some() {
                self.last_id = event.id;
            }
            let is_last = event.data["tags"]["mark"] == LAST && is_final(&event.data);
            self.take(event.data);
            if is_last {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take(&mut self, task: Value) {
        self.events += 1;
        let mut ledger = self.ledger.lock().unwrap();
        ledger.streamed(&task);
        let id = text(&task, "task_id").to_owned();
        if let Some(before) = self.seen.insert(id, without_retry(&task))
            && is_final(&before)
            && before != without_retry(&task)
        {
            ledger.violation(format!(
                "a stream shows {task} after the final {before}, expected no event after the end"
            ));
        }
    }
}
