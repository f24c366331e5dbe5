//! A client: does what the plan says, one request after the other, and enters each answer in the
//! ledger.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::ledger::Ledger;
use crate::outputs;
use crate::plan::{Kind, Operation, Submission};

/// Picks are among this many of the latest, because old tasks have ended long ago.
const LATEST: usize = 12;

pub(crate) struct Connection {
    name: String,
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    /// Where the server listens in this round.
    address: String,
    /// Names what is submitted in this round.
    batch: String,
    /// How many submissions were sent.
    sent: usize,
    /// The tasks that this connection knows of.
    tasks: Vec<String>,
    keyed: Vec<Keyed>,
}

/// A submission with an `Idempotency-Key`; the key is its mark.
#[derive(Clone)]
struct Keyed {
    mark: String,
    body: Value,
    batch: String,
    /// The task that it is, if it was answered.
    id: Option<String>,
}

/// The server has died.
struct NoAnswer;

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
        }
    }

    pub(crate) fn begin_round(&mut self, round: usize, address: &str) {
        self.address = address.to_owned();
        self.batch = format!("r{round}-{}", self.name);
    }

    /// Works until the plan is done or the server is dead. Tells each answer.
    pub(crate) async fn run(mut self, plan: Vec<Operation>, answers: Sender<()>) -> Self {
        for operation in plan {
            let done = match operation {
                Operation::Submit(submission) => self.submit(&submission).await,
                Operation::Look(pick) => self.look(pick).await,
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

    /// After a crash: sends again what came with a key and was not answered.
    pub(crate) async fn repeat_unanswered(&mut self, address: &str) {
        self.address = address.to_owned();
        for index in 0..self.keyed.len() {
            if self.keyed[index].id.is_none() && self.send_keyed(index).await.is_err() {
                self.note(|ledger| ledger.violation("the server died by itself".to_owned()));
            }
        }
    }

    async fn submit(&mut self, submission: &Submission) -> Result<(), NoAnswer> {
        self.sent += 1;
        let mark = format!("{}-{}", self.name, self.sent);
        let body = body(submission, &mark, &self.batch);
        self.note(|ledger| ledger.sent(&mark, submission.kind));
        if submission.keyed {
            self.keyed.push(Keyed { mark, body, batch: self.batch.clone(), id: None });
            return self.send_keyed(self.keyed.len() - 1).await;
        }
        let (status, answer) = self.send(self.post("/tasks").json(&body)).await?;
        match (status, answer["task_id"].as_str(), submission.kind) {
            (200, Some(id), _) => {
                self.note(|ledger| ledger.accepted(&mark, &self.batch, id));
                self.tasks.push(id.to_owned());
            }
            // Its output is in use.
            (409, _, Kind::Tokenize { .. }) => self.note(|ledger| ledger.refused(&mark)),
            _ => self.note(|ledger| ledger.unexpected("submission", &mark, status, &answer)),
        }
        Ok(())
    }

    /// Sends it for the first time or once more: it is always the same task.
    async fn send_keyed(&mut self, index: usize) -> Result<(), NoAnswer> {
        let Keyed { mark, body, batch, id: known } = self.keyed[index].clone();
        let request = self.post("/tasks").header("idempotency-key", &mark).json(&body);
        let (status, answer) = self.send(request).await?;
        match (answer["task_id"].as_str(), known) {
            (Some(id), None) if status == 200 => {
                self.note(|ledger| ledger.accepted(&mark, &batch, id));
                self.tasks.push(id.to_owned());
                self.keyed[index].id = Some(id.to_owned());
            }
            (Some(id), Some(known)) if status == 200 && id == known => {}
            (_, known) => self.note(|ledger| {
                let what = format!("a submission with the key of {known:?}");
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
        let (status, task) = self.send(self.request(Method::GET, &id, wait)).await?;
        self.note(|ledger| match status {
            200 => ledger.observe(&task),
            _ => ledger.unexpected("a look", &id, status, &task),
        });
        Ok(())
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
        let (status, answer) = self.send(self.request(Method::POST, &id, "/retry")).await?;
        self.note(|ledger| ledger.retry_answered(&id, status, &answer));
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

    /// An answer counts when all of it has come.
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

fn body(submission: &Submission, mark: &str, batch: &str) -> Value {
    let sleeper = |seconds: f64| {
        json!({
            "task_type": "dummy_short",
            "parameters": { "duration": seconds, "steps": 4 },
        })
    };
    let mut body = match submission.kind {
        Kind::Nothing => sleeper(0.0),
        Kind::Slow { millis } => sleeper(millis as f64 / 1000.0),
        Kind::Endless => sleeper(1e6),
        Kind::Tokenize { input, output } => outputs::submission(input, output),
        Kind::Fails { attempts } => {
            let mut body = outputs::submission(0, 0);
            body["input_file_path"] = "absent.txt".into();
            // Named after the submission, so that it is never in use.
            body["output_file_path"] = format!("out/never-{mark}.json").into();
            body["max_attempts"] = attempts.into();
            body
        }
    };
    body["priority"] = submission.priority.into();
    body["tags"] = json!({ "mark": mark, "batch": batch });
    body
}
