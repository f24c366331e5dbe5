//! The server's responses, and what must hold from then on.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;
use task_server::task::Timestamp;

use crate::crash::entry::{Ended, Entry, Moment, Sent};
pub(crate) use crate::crash::entry::{is_final, text, without_retry};
use crate::crash::plan::Kind;

/// All promises to the clients of one database, and their violations.
#[derive(Default)]
pub(crate) struct Ledger {
    tasks: HashMap<String, Entry>,
    /// Submissions without a response yet, by mark.
    unanswered: HashMap<String, Sent>,
    /// Tasks with a retry request that has no response yet.
    unanswered_retries: Vec<String>,
    /// Number of tasks reported as cancelled, by batch.
    cancelled_batches: Vec<(String, u64)>,
    /// Retention of the server; `None` keeps tasks forever.
    retention: Option<Duration>,
    /// Number of kills so far. An orderly stop does not count.
    pub(crate) kills: usize,
    /// True after a SIGTERM: the server may refuse requests.
    pub(crate) draining: bool,
    /// Number of accepted cancellations.
    pub(crate) cancels: u64,
    pub(crate) violations: Vec<String>,
    now: Moment,
}

impl Ledger {
    pub(crate) fn new(retention: Option<Duration>) -> Self {
        Self { retention, ..Self::default() }
    }

    /// Records a submission before it is sent.
    pub(crate) fn sent(&mut self, mark: &str, kind: Kind, body: &Value) {
        let run_at = body["run_at"].as_str().map(|time| time.parse().unwrap());
        let sent = Sent { kind, kills_before: self.kills, at: Timestamp::now(), run_at };
        self.unanswered.insert(mark.to_owned(), sent);
    }

    /// Records that a submission was answered with 200.
    pub(crate) fn accepted(&mut self, mark: &str, batch: &str, id: &str) {
        if let Some(sent) = self.unanswered.remove(mark) {
            self.add(id, sent, batch);
        }
    }

    /// Records that a submission was refused: it must not be stored.
    pub(crate) fn refused(&mut self, mark: &str) {
        self.unanswered.remove(mark);
    }

    pub(crate) fn now(&self) -> Moment {
        self.now
    }

    pub(crate) fn retry_sent(&mut self, id: &str) {
        self.unanswered_retries.push(id.to_owned());
    }

    /// Records the response to a retry sent at `sent_at`.
    pub(crate) fn retry_answered(&mut self, id: &str, sent_at: Moment, status: u16, body: &Value) {
        self.unanswered_retries.retain(|sent| sent != id);
        let old = &self.tasks[id];
        let sent = old.sent.again();
        let detail = body["detail"].as_str().unwrap_or_default();
        match status {
            200 => {
                let batch = old.batch.clone();
                self.now.0 += 1;
                if let Some(old) = self.tasks.get_mut(id) {
                    old.retried = Some(self.now);
                }
                self.add(body["task_id"].as_str().unwrap_or_default(), sent, &batch);
            }
            409 if old.had_ended(sent_at) && detail.contains("it is still") => {
                self.violation(format!("{id} had ended, but its retry was answered: {detail}"));
            }
            409 => {}
            404 => self.missing(id),
            _ => self.unavailable("a retry", id, status, body),
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
            404 => return self.missing(id),
            _ => return self.unavailable("a cancellation", id, status, body),
        };
        self.cancels += u64::from(status != 409);
        let Some(entry) = self.tasks.get_mut(id) else { return };
        let before = entry.promised.replace((promised.0.to_owned(), promised.1));
        if before.as_ref().is_some_and(|(before, _)| before != promised.0) {
            let text = format!("{id} was reported as {promised:?}, expected {before:?}");
            self.violation(text);
        }
    }

    pub(crate) fn batch_cancel_sent(&mut self, batch: &str) {
        for entry in self.tasks.values_mut().filter(|entry| entry.batch == batch) {
            entry.cancel_asked = true;
        }
    }

    /// Records the response to a bulk cancellation.
    pub(crate) fn batch_cancel_answered(&mut self, batch: &str, status: u16, body: &Value) {
        let (Some(cancelled), Some(requested), 200) =
            (body["cancelled"].as_u64(), body["requested"].as_u64(), status)
        else {
            return self.unavailable("a cancellation of many", batch, status, body);
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

    /// Tasks not known to have ended.
    pub(crate) fn open(&self) -> Vec<String> {
        let open = self.tasks.iter().filter(|(_, entry)| entry.end.is_none() && !entry.gone);
        open.map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Compares the server's tasks after a restart at `boot` with the promises.
    pub(crate) fn review(&mut self, shown: &[Value], boot: &str) {
        let mut marks = HashSet::new();
        for task in shown {
            let id = text(task, "task_id");
            if task["retry_of"].is_null() && !marks.insert(text(&task["tags"], "mark")) {
                self.violation(format!("one submission created two tasks: {task}"));
            }
            match self.tasks.get(id) {
                None => self.adopt(id, task),
                Some(entry) if entry.gone => {
                    self.violation(format!("was erased but is listed again: {task}"));
                }
                Some(_) => {}
            }
            if text(task, "status") == "running" && text(task, "started_at") < boot {
                self.violation(format!("still running since before the crash: {task}"));
            }
            self.observe(task, self.now);
        }
        let ids: HashSet<_> = shown.iter().map(|task| text(task, "task_id")).collect();
        let missing: Vec<_> =
            self.tasks.keys().filter(|id| !ids.contains(id.as_str())).cloned().collect();
        missing.iter().for_each(|id| self.missing(id));
        // Requests still unanswered died with their server.
        self.unanswered.clear();
        self.unanswered_retries.clear();
    }

    /// Checks the bulk cancellations after all tasks have ended.
    pub(crate) fn review_batches(&mut self) {
        for (batch, promised) in std::mem::take(&mut self.cancelled_batches) {
            let cancelled = |entry: &&Entry| {
                // The end of an erased task may not have been seen.
                let status = entry.end.as_ref().map(|end| text(end, "status"));
                let unseen = status.is_none() && entry.gone;
                entry.batch == batch && (unseen || status == Some("cancelled"))
            };
            let cancelled = self.tasks.values().filter(cancelled).count() as u64;
            if cancelled < promised {
                self.violation(format!(
                    "{promised} tasks of batch {batch} were reported as cancelled, but {cancelled} are"
                ));
            }
        }
    }

    /// Compares a current record with the entry of its task.
    pub(crate) fn observe(&mut self, task: &Value, sent_at: Moment) {
        let retried = self.tasks.get(text(task, "task_id")).and_then(|entry| entry.retried);
        if retried.is_some_and(|at| at <= sent_at) && task["retried_by"].is_null() {
            self.violation(format!("a retried task does not name its retry: {task}"));
        }
        self.judge(task, sent_at);
    }

    fn judge(&mut self, task: &Value, sent_at: Moment) {
        let kills = self.kills;
        let Some(entry) = self.tasks.get_mut(text(task, "task_id")) else { return };
        let mut wrong = Vec::new();
        let task = &without_retry(task);
        if let Some(end) = &entry.end {
            // Until the end was seen, a response may predate it.
            if end != task && (is_final(task) || entry.had_ended(sent_at)) {
                wrong.push(format!("a final state changed: {task}, expected {end}"));
            }
        } else if is_final(task) {
            wrong.extend(entry.judge_end(task, kills));
            self.now.0 += 1;
            (entry.end, entry.end_seen) = (Some(task.clone()), self.now);
        } else if matches!(entry.promised, Some((_, Ended::Already))) {
            wrong.push(format!("is {task}, expected {:?}", entry.promised));
        }
        wrong.extend(entry.judge_start(task));
        wrong.into_iter().for_each(|it| self.violation(it));
    }

    /// Compares a record from an event. Only a final one is sure to be up to date.
    pub(crate) fn streamed(&mut self, task: &Value) {
        if is_final(task) {
            self.judge(task, self.now);
        } else if let Some(entry) = self.tasks.get(text(task, "task_id")) {
            let wrong = entry.judge_start(task);
            self.violations.extend(wrong);
        }
    }

    /// Records that the server reported the task as missing.
    pub(crate) fn missing(&mut self, id: &str) {
        let (now, kills) = (Timestamp::now().as_micros(), self.kills);
        let Some(entry) = self.tasks.get_mut(id) else { return };
        entry.gone = true;
        let keep = self.retention.map(|time| i64::try_from(time.as_micros()).unwrap());
        let until = entry.ended_at(kills).zip(keep).map(|(end, keep)| end.as_micros() + keep);
        if until.is_none_or(|until| now < until) {
            let until = match until {
                Some(until) => format!("at least until {}", Timestamp::from_micros(until)),
                None => "for as long as it has not ended and nothing is erased".to_owned(),
            };
            let text = format!("{id} was accepted and is missing, expected it {until}: {entry:?}");
            self.violation(text);
        }
    }

    /// Number of erased tasks.
    pub(crate) fn erased(&self) -> usize {
        self.tasks.values().filter(|entry| entry.gone).count()
    }

    /// Number of tasks of a kind seen to end with this status.
    pub(crate) fn ends(&self, is: impl Fn(Kind) -> bool, status: &str) -> usize {
        let ended = |entry: &&Entry| {
            is(entry.sent.kind)
                && entry.end.as_ref().is_some_and(|end| text(end, "status") == status)
        };
        self.tasks.values().filter(ended).count()
    }

    /// Adds a task whose request got no response; any other unknown task is a violation.
    fn adopt(&mut self, id: &str, task: &Value) {
        let batch = text(&task["tags"], "batch");
        if let Some(old) = task["retry_of"].as_str() {
            let sent = self.unanswered_retries.iter().position(|sent| sent == old);
            if let (Some(sent), Some(old)) = (sent, self.tasks.get(old)) {
                self.unanswered_retries.swap_remove(sent);
                let sent = old.sent.again();
                return self.add(id, sent, batch);
            }
        } else if let Some(sent) = self.unanswered.remove(text(&task["tags"], "mark")) {
            return self.add(id, sent, batch);
        }
        self.violation(format!("a task that was not submitted, or not this often: {task}"));
    }

    fn add(&mut self, id: &str, sent: Sent, batch: &str) {
        let batch = batch.to_owned();
        if self.tasks.insert(id.to_owned(), Entry::new(sent, batch)).is_some() {
            self.violation(format!("two submissions were answered with {id}, expected two tasks"));
        }
    }

    /// Records a response that is legal only as a 503 of a stopping server.
    pub(crate) fn unavailable(&mut self, what: &str, whose: &str, status: u16, body: &Value) {
        if status != 503 || !self.draining {
            self.unexpected(what, whose, status, body);
        }
    }

    pub(crate) fn unexpected(&mut self, what: &str, whose: &str, status: u16, body: &Value) {
        self.violation(format!("{what} of {whose} was answered {status} {body}"));
    }

    pub(crate) fn violation(&mut self, text: String) {
        self.violations.push(text);
    }
}
