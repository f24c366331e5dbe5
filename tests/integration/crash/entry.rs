//! State of one task in the ledger, and the ends it may have.

use serde_json::Value;
use task_server::task::Timestamp;

use crate::crash::plan::Kind;

/// Number of interruptions after which a task is failed.
const MAX_INTERRUPTIONS: usize = 3;

/// A submission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) kind: Kind,
    /// Number of kills before the submission.
    pub(crate) kills_before: usize,
    pub(crate) at: Timestamp,
    pub(crate) run_at: Option<Timestamp>,
}

/// A task known to be stored.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) sent: Sent,
    pub(crate) batch: String,
    /// True once a cancellation was sent, answered or not.
    pub(crate) cancel_asked: bool,
    /// The promised final status, and whether the task had ended already according to the response.
    pub(crate) promised: Option<(String, Ended)>,
    /// The final record as first seen.
    pub(crate) end: Option<Value>,
    /// Moment the end was first seen.
    pub(crate) end_seen: Moment,
    /// Moment a retry was accepted.
    pub(crate) retried: Option<Moment>,
    /// True once the server has reported the task as missing.
    pub(crate) gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Already,
    Soon,
}

impl Sent {
    /// The submission of a retry, which has no `run_at`.
    pub(crate) fn again(self) -> Self {
        Self { run_at: None, ..self }
    }
}

/// Number of ends and retries seen so far. Streams see ends while the server answers other
/// connections, so a response has to agree only with what was known when its request was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Entry {
    /// True if the end was known at that moment.
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

    /// Earliest possible end; `None` if the task cannot have ended.
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

    /// Violation in the start time, if any.
    pub(crate) fn judge_start(&self, task: &Value) -> Option<String> {
        let (run_at, status) = (self.sent.run_at?, text(task, "status"));
        let waited = match time(task, "started_at") {
            Some(started) => started >= run_at,
            None => status == "pending" || status == "cancelled",
        };
        (!waited).then(|| format!("started too early: {task}, expected {run_at} or later"))
    }

    /// Violation in the final record after this many kills, if any.
    pub(crate) fn judge_end(&self, task: &Value, kills: usize) -> Option<String> {
        let status = text(task, "status");
        if let Some((promised, _)) = self.promised.as_ref().filter(|(it, _)| it != status) {
            return Some(format!("ended as {task}, but {promised} was promised"));
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
                "ended as {task}, expected {expected:?} (status, attempt, error) for \
                 {:?}; cancellation requested: {asked}, deaths of the server: {deaths}",
                self.sent.kind
            )
        })
    }

    /// True if enough kills followed that the task may count as their cause.
    fn may_be_what_kills(&self, kills: usize) -> bool {
        kills - self.sent.kills_before >= MAX_INTERRUPTIONS
    }
}

/// The record without its link to a retry, which may be added after the end.
pub(crate) fn without_retry(task: &Value) -> Value {
    let mut task = task.clone();
    task["retried_by"] = Value::Null;
    task
}

/// True for the record of an ended task.
pub(crate) fn is_final(task: &Value) -> bool {
    task["completed_at"].is_string()
}

/// Field of a record; empty if absent.
pub(crate) fn text<'t>(value: &'t Value, field: &str) -> &'t str {
    value[field].as_str().unwrap_or_default()
}

fn time(task: &Value, field: &str) -> Option<Timestamp> {
    task[field].as_str().map(|time| time.parse().unwrap())
}
