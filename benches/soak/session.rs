//! State shared by all clients: the server's address, counts and faults.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

/// Number of recent ids kept for polling clients.
const RECENT: usize = 1000;
/// Timeout of every request and wait.
const PATIENCE: Duration = Duration::from_secs(120);
/// Number of faults to print; the rest is only counted.
const TOLD: usize = 20;

#[derive(Clone, Debug)]
pub(crate) struct Session(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    client: RefCell<Client>,
    address: String,
    folder: PathBuf,
    over: Cell<bool>,
    recent: RefCell<VecDeque<String>>,
    counts: RefCell<BTreeMap<&'static str, u64>>,
    faults: RefCell<Vec<String>>,
    slowest: Cell<Duration>,
}

impl Session {
    pub(crate) fn new(address: &str, folder: &Path) -> Self {
        Self(Rc::new(Shared {
            client: RefCell::new(client()),
            address: address.to_owned(),
            folder: folder.to_owned(),
            over: Cell::default(),
            recent: RefCell::default(),
            counts: RefCell::default(),
            faults: RefCell::default(),
            slowest: Cell::default(),
        }))
    }

    pub(crate) fn address(&self) -> &str {
        &self.0.address
    }

    /// Working directory of the server.
    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Makes the clients stop.
    pub(crate) fn end(&self) {
        self.0.over.set(true);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.over.get()
    }

    /// Increments a count.
    pub(crate) fn count(&self, what: &'static str) {
        *self.0.counts.borrow_mut().entry(what).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> String {
        let counts = self.0.counts.borrow();
        counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    }

    /// Number of ended tasks.
    pub(crate) fn done(&self) -> u64 {
        let counts = self.0.counts.borrow();
        counts.iter().filter(|(what, _)| what.ends_with("tasks")).map(|(_, count)| count).sum()
    }

    /// Seconds of the slowest request, except those that wait.
    pub(crate) fn slowest(&self) -> f64 {
        self.0.slowest.get().as_secs_f64()
    }

    pub(crate) fn fault(&self, what: String) {
        self.0.faults.borrow_mut().push(what);
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let faults = self.0.faults.borrow();
        let more = faults.len().saturating_sub(TOLD);
        let rest = (more > 0).then(|| format!("and {more} more"));
        faults.iter().take(TOLD).cloned().chain(rest).collect()
    }

    /// Id of one of the latest tasks.
    pub(crate) fn some_id(&self, number: usize) -> Option<String> {
        let recent = self.0.recent.borrow();
        number.checked_rem(recent.len()).map(|index| recent[index].clone())
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.0.client.borrow().get(format!("http://{}{path}", self.0.address))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.0.client.borrow().post(format!("http://{}{path}", self.0.address))
    }

    pub(crate) fn delete(&self, path: &str) -> RequestBuilder {
        self.0.client.borrow().delete(format!("http://{}{path}", self.0.address))
    }

    /// Sends a request; records a fault on any other status.
    pub(crate) async fn send(&self, request: RequestBuilder, expected: &[u16]) -> (u16, Value) {
        let sent = Instant::now();
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let what = format!("{} {}", request.method(), request.url());
        let waits = what.contains("wait=") || what.starts_with("DELETE");
        let answer = async {
            let answer = client.execute(request).await?;
            Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.text().await?))
        };
        let (status, text) = match answer.await {
            Ok(answer) => answer,
            Err(error) => {
                self.fault(format!("{what}: {error:?}"));
                return (0, Value::Null);
            }
        };
        if !waits {
            self.0.slowest.set(self.0.slowest.get().max(sent.elapsed()));
        }
        if !expected.contains(&status) {
            self.fault(format!("{what}: {status} {text}"));
        }
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// Submits a task; returns its id.
    pub(crate) async fn submit(&self, body: &Value, key: Option<String>) -> Option<String> {
        let mut request = self.post("/tasks").json(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let (_, answer) = self.send(request, &[200]).await;
        let id = answer["task_id"].as_str()?.to_owned();
        let mut recent = self.0.recent.borrow_mut();
        recent.push_back(id.clone());
        if recent.len() > RECENT {
            recent.pop_front();
        }
        Some(id)
    }

    /// Waits until a task has ended; records a fault on any other status.
    pub(crate) async fn wait_for(&self, id: &str, expected: &str) {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let (status, task) = self.send(self.get(&format!("/tasks/{id}?wait=30")), &[200]).await;
            if status != 200 || task["completed_at"].is_string() {
                if task["status"] != expected {
                    self.fault(format!("{id} should have ended as {expected}: {task}"));
                }
                return;
            }
        }
        self.fault(format!("{id} does not end"));
    }

    /// Closes idle connections, and cancels tasks the clients left behind.
    pub(crate) async fn clear(&self) {
        self.0.client.replace(client());
        self.send(self.post("/tasks/cancel?status=pending,running"), &[200]).await;
    }

    /// Waits until all tasks have ended; returns the seconds it took.
    pub(crate) async fn until_at_rest(&self) -> f64 {
        let begin = Instant::now();
        loop {
            let request = self.get("/health/ready").header("connection", "close");
            let (_, load) = self.send(request, &[200]).await;
            if load["running"] == 0 && load["pending"] == 0 {
                break;
            }
            if begin.elapsed() > PATIENCE {
                self.fault(format!("the server does not come to rest: {load}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        begin.elapsed().as_secs_f64()
    }
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

/// Submission of an empty task.
pub(crate) fn nothing() -> Value {
    json!({ "task_type": "dummy_short", "parameters": { "duration": 0, "steps": 1 } })
}

/// Submission of a task that runs until it is cancelled.
pub(crate) fn endless() -> Value {
    json!({ "task_type": "dummy_very_long", "parameters": { "duration": 1e6, "steps": 1_000_000 } })
}
