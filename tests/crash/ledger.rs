//! What the server has answered, and what must be true ever after.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::plan::Kind;

/// How often the server may die under a task before it is failed.
const MAX_INTERRUPTIONS: usize = 3;

/// Everything that was promised to the clients of one database, and what broke a promise.
#[derive(Default)]
pub(crate) struct Ledger {
    tasks: HashMap<String, Entry>,
    /// Submissions that were sent and not answered yet, by their mark.
    unanswered: HashMap<String, Sent>,
    /// Tasks whose retry was sent and not answered yet.
    unanswered_retries: Vec<String>,
    /// How many tasks of a batch were said to be cancelled.
    cancelled_batches: Vec<(String, u64)>,
    /// How often the server was killed so far.
    pub(crate) kills: usize,
    /// Cancellations that were accepted.
    pub(crate) cancels: u64,
    pub(crate) violations: Vec<String>,
}

#[derive(Clone, Copy)]
struct Sent {
    kind: Kind,
    /// How often the server had been killed by then.
    kills_before: usize,
}

/// A task that is known to be stored.
struct Entry {
    sent: Sent,
    batch: String,
    /// Whether anybody has asked for its cancellation, with an answer or without.
    cancel_asked: bool,
    /// The status that it must end in, and whether it was said to have ended already.
    promised: Option<(String, Ended)>,
    /// How it ended, as it was first seen.
    end: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Already,
    Soon,
}

impl Ledger {
    pub(crate) fn sent(&mut self, mark: &str, kind: Kind) {
        self.unanswered.insert(mark.to_owned(), Sent { kind, kills_before: self.kills });
    }

    /// A submission was answered with 200.
    pub(crate) fn accepted(&mut self, mark: &str, batch: &str, id: &str) {
        if let Some(sent) = self.unanswered.remove(mark) {
            self.add(id, sent, batch);
        }
    }

    /// A submission was answered with a refusal, so that it must not be stored.
    pub(crate) fn refused(&mut self, mark: &str) {
        self.unanswered.remove(mark);
    }

    pub(crate) fn retry_sent(&mut self, id: &str) {
        self.unanswered_retries.push(id.to_owned());
    }

    pub(crate) fn retry_answered(&mut self, id: &str, status: u16, body: &Value) {
        self.unanswered_retries.retain(|sent| sent != id);
        let old = &self.tasks[id];
        let sent = Sent { kind: old.sent.kind, kills_before: self.kills };
        let detail = body["detail"].as_str().unwrap_or_default();
        match status {
            200 => {
                let batch = old.batch.clone();
                self.add(body["task_id"].as_str().unwrap_or_default(), sent, &batch);
            }
            409 if old.end.is_some() && detail.contains("it is still") => {
                self.violation(format!("{id} had ended, and its retry says: {detail}"));
            }
            409 => {}
            _ => self.unexpected("a retry", id, status, body),
        }
    }

    pub(crate) fn cancel_sent(&mut self, id: &str) {
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.cancel_asked = true;
        }
    }

    pub(crate) fn cancel_answered(&mut self, id: &str, status: u16, body: &Value) {
        let detail = body["detail"].as_str().unwrap_or_default();
        let promised = match status {
            200 => ("cancelled", Ended::Already),
            202 => ("cancelled", Ended::Soon),
            409 => (detail.rsplit(' ').next().unwrap_or_default(), Ended::Already),
            _ => return self.unexpected("a cancellation", id, status, body),
        };
        self.cancels += u64::from(status != 409);
        let Some(entry) = self.tasks.get_mut(id) else { return };
        let before = entry.promised.replace((promised.0.to_owned(), promised.1));
        if before.as_ref().is_some_and(|(before, _)| before != promised.0) {
            let text = format!("{id} was promised to be {before:?}, now {promised:?}");
            self.violation(text);
        }
    }

    pub(crate) fn batch_cancel_sent(&mut self, batch: &str) {
        for entry in self.tasks.values_mut().filter(|entry| entry.batch == batch) {
            entry.cancel_asked = true;
        }
    }

    /// All unfinished tasks of a batch were cancelled.
    pub(crate) fn batch_cancel_answered(&mut self, batch: &str, status: u16, body: &Value) {
        let (Some(cancelled), Some(requested), 200) =
            (body["cancelled"].as_u64(), body["requested"].as_u64(), status)
        else {
            return self.unexpected("a cancellation of many", batch, status, body);
        };
        self.cancels += cancelled + requested;
        let said = |entry: &&Entry| {
            let cancelled = Some(("cancelled".to_owned(), Ended::Already));
            entry.batch == batch && entry.promised == cancelled
        };
        let before = self.tasks.values().filter(said).count() as u64;
        self.cancelled_batches.push((batch.to_owned(), before + cancelled + requested));
    }

    pub(crate) fn kind(&self, id: &str) -> Kind {
        self.tasks[id].sent.kind
    }

    /// The tasks that are not known to have ended.
    pub(crate) fn open(&self) -> Vec<String> {
        let open = self.tasks.iter().filter(|(_, entry)| entry.end.is_none());
        open.map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Compares everything that the server shows after a restart with what was promised. `boot` is
    /// when it was started.
    pub(crate) fn review(&mut self, shown: &[Value], boot: &str) {
        let mut marks = HashSet::new();
        for task in shown {
            let id = text(task, "task_id");
            if task["retry_of"].is_null() && !marks.insert(text(&task["tags"], "mark")) {
                self.violation(format!("one submission made two tasks: {task}"));
            }
            if !self.tasks.contains_key(id) {
                self.adopt(id, task);
            }
            if text(task, "status") == "running" && text(task, "started_at") < boot {
                self.violation(format!("still running since before the crash: {task}"));
            }
            self.observe(task);
        }
        let ids: HashSet<_> = shown.iter().map(|task| text(task, "task_id")).collect();
        let missing: Vec<_> =
            self.tasks.keys().filter(|id| !ids.contains(id.as_str())).cloned().collect();
        for id in missing {
            self.violation(format!("{id} was accepted and is missing"));
        }
        // Whoever asked for the rest is gone, and so is the server that heard it.
        self.unanswered.clear();
        self.unanswered_retries.clear();
    }

    /// What must hold once everything has ended.
    pub(crate) fn review_batches(&mut self) {
        for (batch, promised) in std::mem::take(&mut self.cancelled_batches) {
            let cancelled = |entry: &&Entry| {
                let status = entry.end.as_ref().map(|end| text(end, "status"));
                entry.batch == batch && status == Some("cancelled")
            };
            let cancelled = self.tasks.values().filter(cancelled).count() as u64;
            if cancelled < promised {
                self.violation(format!(
                    "of batch {batch} {promised} were said to be cancelled, {cancelled} are"
                ));
            }
        }
    }

    /// Compares the record of a task with what is known of it.
    pub(crate) fn observe(&mut self, task: &Value) {
        let kills = self.kills;
        let Some(entry) = self.tasks.get_mut(text(task, "task_id")) else { return };
        let mut wrong = Vec::new();
        if let Some(end) = &entry.end {
            if end != task {
                wrong.push(format!("a final state has changed: {end} is now {task}"));
            }
        } else if task["completed_at"].is_string() {
            wrong.extend(entry.judge_end(task, kills));
            entry.end = Some(task.clone());
        } else if matches!(entry.promised, Some((_, Ended::Already))) {
            wrong.push(format!("was said to be {:?}, but is {task}", entry.promised));
        }
        wrong.into_iter().for_each(|it| self.violation(it));
    }

    /// Somebody asked for this task and got no answer, or else it should not be there.
    fn adopt(&mut self, id: &str, task: &Value) {
        let batch = text(&task["tags"], "batch");
        if let Some(old) = task["retry_of"].as_str() {
            let sent = self.unanswered_retries.iter().position(|sent| sent == old);
            if let (Some(sent), Some(old)) = (sent, self.tasks.get(old)) {
                self.unanswered_retries.swap_remove(sent);
                let sent = Sent { kind: old.sent.kind, kills_before: old.sent.kills_before };
                return self.add(id, sent, batch);
            }
        } else if let Some(sent) = self.unanswered.remove(text(&task["tags"], "mark")) {
            return self.add(id, sent, batch);
        }
        self.violation(format!("a task that nobody has submitted, or not so often: {task}"));
    }

    fn add(&mut self, id: &str, sent: Sent, batch: &str) {
        let batch = batch.to_owned();
        let entry = Entry { sent, batch, cancel_asked: false, promised: None, end: None };
        if self.tasks.insert(id.to_owned(), entry).is_some() {
            self.violation(format!("two submissions were answered with {id}"));
        }
    }

    pub(crate) fn unexpected(&mut self, what: &str, whose: &str, status: u16, body: &Value) {
        self.violation(format!("{what} of {whose} was answered {status} {body}"));
    }

    pub(crate) fn violation(&mut self, text: String) {
        self.violations.push(text);
    }
}

impl Entry {
    /// What is wrong with such an end after so many kills.
    fn judge_end(&self, task: &Value, kills: usize) -> Option<String> {
        let status = text(task, "status");
        if let Some((promised, _)) = self.promised.as_ref().filter(|(it, _)| it != status) {
            return Some(format!("was promised to be {promised}: {task}"));
        }
        let error = task["error"].as_str().unwrap_or_default();
        let legal = match (status, self.sent.kind) {
            ("completed", Kind::Nothing | Kind::Slow { .. } | Kind::Tokenize { .. }) => {
                task["attempt"] == 1
            }
            ("cancelled", _) => self.cancel_asked,
            // It may be what kills the server.
            ("failed", _) if error.contains("the server stopped 3 times") => {
                kills - self.sent.kills_before >= MAX_INTERRUPTIONS
            }
            ("failed", Kind::Fails { attempts }) => {
                task["attempt"] == attempts && error.contains("absent.txt")
            }
            _ => false,
        };
        (!legal).then(|| format!("{:?} cannot end like that: {task}", self.sent.kind))
    }
}

/// A field of a record; empty if it is not there.
fn text<'t>(value: &'t Value, field: &str) -> &'t str {
    value[field].as_str().unwrap_or_default()
}
