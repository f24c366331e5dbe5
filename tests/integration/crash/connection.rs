//! A client: executes its plan, one request after the other, and records each response in the
//! ledger.

use std::collections::HashMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::crash::PATIENCE;
use crate::crash::ledger::{Ledger, is_final};
use crate::crash::plan::{Kind, Operation, Submission};
use crate::crash::request::body;
use crate::crash::stream::EventStream;

/// Time spent on reading the events of a task.
const READING: Duration = Duration::from_millis(50);
/// Suffix of the id of a task's last event.
const END: &str = "-end";
/// Operations pick one of this many latest tasks, because older ones have ended long ago.
const LATEST: usize = 12;

pub(crate) struct Connection {
    name: String,
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    /// Address of the server in this round.
    address: String,
    /// Tag of the tasks submitted in this round.
    batch: String,
    /// Number of submissions sent.
    sent: usize,
    /// Tasks known to this connection.
    tasks: Vec<String>,
    keyed: Vec<Keyed>,
    /// Last event id of each task whose stream was read.
    followed: HashMap<String, Option<String>>,
}

/// A submission with an `Idempotency-Key`, which is its mark.
#[derive(Clone)]
struct Keyed {
    mark: String,
    body: Value,
    batch: String,
    /// The first response.
    answer: Option<Value>,
}

/// The server died before it responded.
pub(crate) struct NoAnswer;

impl Connection {
    pub(crate) fn new(number: usize, ledger: &Arc<Mutex<Ledger>>) -> Self {
        Self {
            name: format!("c{number}"),
            client: Client::builder().no_proxy().build().unwrap(),
            ledger: Arc::clone(ledger),
            address: String::new(),
            batch: String::new(),
            sent: 0,
            tasks: Vec::new(),
            keyed: Vec::new(),
            followed: HashMap::new(),
        }
    }

    pub(crate) fn begin_round(&mut self, round: usize, address: &str) {
        self.address = address.to_owned();
        self.batch = format!("r{round}-{}", self.name);
    }

    /// Executes the plan until it is done or the server is dead. Sends a `()` for each response.
    pub(crate) async fn run(mut self, plan: Vec<Operation>, answers: Sender<()>) -> Self {
        for operation in plan {
            let done = match operation {
                Operation::Submit(submission) => self.submit(&submission).await,
                Operation::Look(pick) => self.look(pick).await,
                Operation::Follow(pick) => self.follow_one(pick).await,
                Operation::Cancel(pick) => self.cancel(pick).await,
                Operation::CancelAll => self.cancel_all().await,
                Operation::Retry(pick) => self.retry(pick).await,
                Operation::Repeat(pick) => self.repeat(pick).await,
            };
            if let Err(NoAnswer) = done {
                break;
            }
            let _ = answers.send(());
        }
        self
    }

    /// After a crash: sends the unanswered submissions with a key again.
    pub(crate) async fn repeat_unanswered(&mut self, address: &str) {
        self.repeat_all(address, |keyed| keyed.answer.is_none()).await;
    }

    /// Sends all submissions with a key again, including those whose tasks were erased.
    pub(crate) async fn repeat_keyed(&mut self, address: &str) {
        self.repeat_all(address, |_| true).await;
    }

    async fn repeat_all(&mut self, address: &str, wanted: impl Fn(&Keyed) -> bool) {
        self.address = address.to_owned();
        for index in 0..self.keyed.len() {
            if wanted(&self.keyed[index]) && self.send_keyed(index).await.is_err() {
                self.note(|ledger| ledger.violation("the server died without a kill".to_owned()));
            }
        }
    }

    /// Resumes the stream of each followed task after all tasks have ended: each must deliver the
    /// end, unless it did before.
    pub(crate) async fn follow_to_the_end(&mut self, address: &str) {
        self.address = address.to_owned();
        let followed: Vec<_> = self.followed.keys().cloned().collect();
        for id in followed {
            let read = tokio::time::timeout(PATIENCE, self.follow(&id)).await;
            if !matches!(read, Ok(Ok(()))) {
                let text = format!("the stream of {id} does not deliver the end of its task");
                self.note(|ledger| ledger.violation(text));
            }
        }
    }

    async fn submit(&mut self, submission: &Submission) -> Result<(), NoAnswer> {
        self.sent += 1;
        let mark = format!("{}-{}", self.name, self.sent);
        let body = body(submission, &mark, &self.batch);
        self.note(|ledger| ledger.sent(&mark, submission.kind, &body));
        if submission.keyed {
            self.keyed.push(Keyed { mark, body, batch: self.batch.clone(), answer: None });
            return self.send_keyed(self.keyed.len() - 1).await;
        }
        let (status, answer) = self.send(self.post("/tasks").json(&body)).await?;
        match (status, answer["task_id"].as_str(), submission.kind) {
            (200, Some(id), _) => {
                self.note(|ledger| ledger.accepted(&mark, &self.batch, id));
                self.tasks.push(id.to_owned());
            }
            // The output is in use.
            (409, _, Kind::File { .. }) => self.note(|ledger| ledger.refused(&mark)),
            _ => self.note(|ledger| {
                ledger.refused(&mark);
                ledger.unavailable("a submission", &mark, status, &answer);
            }),
        }
        Ok(())
    }

    /// Sends a submission with a key; every repetition must return the same task.
    async fn send_keyed(&mut self, index: usize) -> Result<(), NoAnswer> {
        let Keyed { mark, body, batch, answer: first } = self.keyed[index].clone();
        let request = self.post("/tasks").header("idempotency-key", &mark).json(&body);
        let (status, answer) = self.send(request).await?;
        match (answer["task_id"].as_str(), first) {
            (Some(id), None) if status == 200 => {
                self.note(|ledger| ledger.accepted(&mark, &batch, id));
                self.tasks.push(id.to_owned());
                self.keyed[index].answer = Some(answer);
            }
            (Some(_), Some(first)) if status == 200 => {
                if answer != first {
                    let text = format!("the key {mark} was answered {answer}, expected {first}");
                    self.note(|ledger| ledger.violation(text));
                }
            }
            (_, None) => self.note(|ledger| {
                ledger.unavailable("a submission with a key", &mark, status, &answer);
            }),
            (_, Some(first)) => self.note(|ledger| {
                let what = format!("a submission with the key of {first}");
                ledger.unexpected(&what, &mark, status, &answer);
            }),
        }
        Ok(())
    }

    async fn repeat(&mut self, pick: usize) -> Result<(), NoAnswer> {
        match self.keyed.len() {
            0 => Ok(()),
            count => self.send_keyed(pick % count).await,
        }
    }

    async fn look(&mut self, pick: usize) -> Result<(), NoAnswer> {
        let Some(id) = self.pick(pick) else { return Ok(()) };
        let kind = self.ledger.lock().unwrap().kind(&id);
        let wait = if kind == Kind::Nothing { "?wait=1" } else { "" };
        let sent_at = self.ledger.lock().unwrap().now();
        let (status, task) = self.send(self.request(Method::GET, &id, wait)).await?;
        self.note(|ledger| match status {
            200 => ledger.observe(&task, sent_at),
            404 => ledger.missing(&id),
            _ => ledger.unavailable("a look", &id, status, &task),
        });
        Ok(())
    }

    async fn follow_one(&mut self, pick: usize) -> Result<(), NoAnswer> {
        let Some(id) = self.pick(pick) else { return Ok(()) };
        // The task may have no event for a long time.
        tokio::time::timeout(READING, self.follow(&id)).await.unwrap_or(Ok(()))
    }

    /// Reads the events of a task to its end, from where this connection stopped.
    async fn follow(&mut self, id: &str) -> Result<(), NoAnswer> {
        let last_id = self.followed.entry(id.to_owned()).or_default();
        let url = format!("http://{}/tasks/{id}/events", self.address);
        let knows_end = last_id.as_ref().is_some_and(|last| last.ends_with(END));
        let mut stream = match EventStream::open(&self.client, url, last_id.as_deref()).await? {
            Ok(stream) => stream,
            Err((status, body)) => {
                let mut ledger = self.ledger.lock().unwrap();
                match status {
                    204 if knows_end => {}
                    404 => ledger.missing(id),
                    _ => ledger.unavailable("the event stream", id, status, &body),
                }
                return Ok(());
            }
        };
        if knows_end {
            let text = format!("the stream of {id} continues after its end, expected a 204");
            self.ledger.lock().unwrap().violation(text);
        }
        loop {
            // The stream ends with the task or with the server.
            let event = stream.next().await?.ok_or(NoAnswer)?;
            if event.name == "reset" {
                continue;
            }
            if event.id.is_some() {
                *last_id = event.id;
            }
            self.ledger.lock().unwrap().streamed(&event.data);
            if is_final(&event.data) {
                return Ok(());
            }
        }
    }

    async fn cancel(&mut self, pick: usize) -> Result<(), NoAnswer> {
        let Some(id) = self.pick(pick) else { return Ok(()) };
        self.note(|ledger| ledger.cancel_sent(&id));
        let (status, answer) = self.send(self.request(Method::DELETE, &id, "")).await?;
        self.note(|ledger| ledger.cancel_answered(&id, status, &answer));
        Ok(())
    }

    async fn cancel_all(&mut self) -> Result<(), NoAnswer> {
        self.note(|ledger| ledger.batch_cancel_sent(&self.batch));
        let request = self.post(&format!("/tasks/cancel?tag.batch={}", self.batch));
        let (status, answer) = self.send(request).await?;
        self.note(|ledger| ledger.batch_cancel_answered(&self.batch, status, &answer));
        Ok(())
    }

    async fn retry(&mut self, pick: usize) -> Result<(), NoAnswer> {
        let Some(id) = self.pick(pick) else { return Ok(()) };
        self.note(|ledger| ledger.retry_sent(&id));
        let sent_at = self.ledger.lock().unwrap().now();
        let (status, answer) = self.send(self.request(Method::POST, &id, "/retry")).await?;
        self.note(|ledger| ledger.retry_answered(&id, sent_at, status, &answer));
        self.tasks.extend(answer["task_id"].as_str().map(str::to_owned));
        Ok(())
    }

    fn pick(&self, pick: usize) -> Option<String> {
        let latest = &self.tasks[self.tasks.len().saturating_sub(LATEST)..];
        latest.get(pick % latest.len().max(1)).cloned()
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address))
    }

    fn request(&self, method: Method, id: &str, rest: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}/tasks/{id}{rest}", self.address))
    }

    /// A response counts only if it arrives completely.
    async fn send(&self, request: RequestBuilder) -> Result<(u16, Value), NoAnswer> {
        let response = request.send().await.map_err(|_| NoAnswer)?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|_| NoAnswer)?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    fn note(&self, entry: impl FnOnce(&mut Ledger)) {
        entry(&mut self.ledger.lock().unwrap());
    }
}
