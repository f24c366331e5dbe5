//! What is known of one task, and what may become of it.

use serde_json::Value;
use task_server::task::Timestamp;

use crate::crash::plan::Kind;

/// How often the server may die under a task before it is failed.
const MAX_INTERRUPTIONS: usize = 3;

/// A submission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) kind: Kind,
    /// How often the server had been killed by then.
    pub(crate) kills_before: usize,
    pub(crate) at: Timestamp,
    pub(crate) run_at: Option<Timestamp>,
}

/// A task that is known to be stored.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) sent: Sent,
    pub(crate) batch: String,
    /// Whether anybody has asked for its cancellation, with an answer or without.
    pub(crate) cancel_asked: bool,
    /// The status that it must end in, and whether it was said to have ended already.
    pub(crate) promised: Option<(String, Ended)>,
    /// How it ended, as it was first seen.
    pub(crate) end: Option<Value>,
    /// When the end was seen.
    pub(crate) end_seen: Moment,
    /// When a retry of it was accepted.
    pub(crate) retried: Option<Moment>,
    /// Whether the server has said that it is not there any more.
    pub(crate) gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Already,
    Soon,
}

impl Sent {
    /// A retry: it was sent later, and does not wait for a time.
    pub(crate) fn again(self) -> Self {
        Self { run_at: None, ..self }
    }
}

/// Number of ends and retries that were seen so far. Streams see ends while the server answers other connections, so a
/// response has to agree only with what was known when its request was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Entry {
    /// Whether its end was known at that moment.
    pub(crate) fn had_ended(&self, at: Moment) -> bool {
        self.end.is_some() && self.end_seen <= at
    }

    pub(crate) fn new(sent: Sent, batch: String) -> Self {
        let (promised, end, end_seen) = (None, None, Moment::default());
        Self {
            sent,
            batch,
            cancel_asked: false,
            promised,
            end,
            end_seen,
            retried: None,
            gone: false,
        }
    }

    /// When it has ended at the earliest; `None` if it cannot have.
    pub(crate) fn ended_at(&self, kills: usize) -> Option<Timestamp> {
        if let Some(end) = &self.end {
            return time(end, "completed_at");
        }
        let Sent { at, run_at, .. } = self.sent;
        if self.cancel_asked || self.may_be_what_kills(kills) {
            return Some(at);
        }
        let after = |millis: u64| Timestamp::from_micros(at.as_micros() + millis as i64 * 1000);
        match self.sent.kind {
            Kind::Endless => None,
            Kind::Slow { millis } | Kind::TimesOut { millis, .. } => Some(after(millis)),
            Kind::Later { .. } => Some(run_at.map_or(at, |run_at| run_at.max(at))),
            Kind::Nothing | Kind::File { .. } | Kind::Fails { .. } => Some(at),
        }
    }

    /// What is wrong with the time at which it has started.
    pub(crate) fn judge_start(&self, task: &Value) -> Option<String> {
        let (run_at, status) = (self.sent.run_at?, text(task, "status"));
        let waited = match time(task, "started_at") {
            Some(started) => started >= run_at,
            None => status == "pending" || status == "cancelled",
        };
        (!waited).then(|| format!("has started too early: {task}, expected {run_at} or later"))
    }

    /// What is wrong with such an end after so many kills.
    pub(crate) fn judge_end(&self, task: &Value, kills: usize) -> Option<String> {
        let status = text(task, "status");
        if let Some((promised, _)) = self.promised.as_ref().filter(|(it, _)| it != status) {
            return Some(format!("has ended as {task}, expected {promised} as it was promised"));
        }
        let error = text(task, "error");
        let expected = match self.sent.kind {
            Kind::Nothing | Kind::Slow { .. } | Kind::Later { .. } | Kind::File { .. } => {
                ("completed", 1, "")
            }
            Kind::Endless => ("cancelled", 1, ""),
            Kind::TimesOut { attempts, .. } => ("failed", attempts, "within its timeout"),
            Kind::Fails { attempts } => ("failed", attempts, "absent.txt"),
        };
        let legal = match status {
            "cancelled" => self.cancel_asked,
            "failed" if error.contains("the server stopped 3 times") => {
                self.may_be_what_kills(kills)
            }
            _ => {
                (status, task["attempt"].as_u64()) == (expected.0, Some(expected.1.into()))
                    && error.contains(expected.2)
            }
        };
        (!legal).then(|| {
            let (asked, deaths) = (self.cancel_asked, kills - self.sent.kills_before);
            format!(
                "has ended as {task}, expected {expected:?} (status, attempt, error) of \
                 {:?}; cancellation asked for: {asked}, deaths of the server: {deaths}",
                self.sent.kind
            )
        })
    }

    /// Whether the server has died so often since that the task may be the reason.
    fn may_be_what_kills(&self, kills: usize) -> bool {
        kills - self.sent.kills_before >= MAX_INTERRUPTIONS
    }
}

/// The record as the end of the task has left it.
pub(crate) fn without_retry(task: &Value) -> Value {
    let mut task = task.clone();
    task["retried_by"] = Value::Null;
    task
}

/// Whether the record is that of a task that has ended.
pub(crate) fn is_final(task: &Value) -> bool {
    task["completed_at"].is_string()
}

/// A field of a record; empty if it is not there.
pub(crate) fn text<'t>(value: &'t Value, field: &str) -> &'t str {
    value[field].as_str().unwrap_or_default()
}

fn time(task: &Value, field: &str) -> Option<Timestamp> {
    task[field].as_str().map(|time| time.parse().unwrap())
}
