//! The record of a task, as clients poll it.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use strum::{EnumString, IntoStaticStr, VariantArray};
use uuid::Uuid;

/// Id of a task: a UUID of version 7, so that ids sort by submission time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId(Uuid);

impl TaskId {
    /// Returns a new, unique id.
    pub fn new() -> Self {
        Self(new_uuid())
    }
}

/// Returns a new UUID of version 7. It cannot express times before 1970, which become 1970.
pub(crate) fn new_uuid() -> Uuid {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(_) => Uuid::now_v7(),
        Err(_) => Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 0, 0)),
    }
}

impl Default for TaskId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TaskId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// State of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[derive(EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum TaskStatus {
    /// Stored and queued.
    Pending,
    /// In an attempt.
    Running,
    /// Ended with a result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by a cancellation.
    Cancelled,
}

impl TaskStatus {
    /// All states.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// Name on the wire and in the database.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns whether the task has ended.
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// A point in time, in microseconds UTC. Written as RFC 3339 with six decimals and `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Current time of the wall clock.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// Converts from microseconds since the Unix epoch.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The database may hold times outside jiff's range, the years -9999 to 9999.
        let time = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{time:.6}")
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>().map(|time| Self(time.as_microsecond()))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| {
            let expected = "expected a time such as 2026-01-31T15:30:00Z";
            serde::de::Error::custom(format!("invalid time `{text}`: {expected}: {error}"))
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Record of a task, as clients see it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct TaskInfo {
    /// Id of the task.
    #[schema(value_type = String, format = "uuid")]
    pub task_id: TaskId,
    /// One of `GET /task-types`, or a type that another version of the server stored.
    pub task_type: String,
    /// State of the task.
    pub status: TaskStatus,
    /// Percent done, 0 to 100.
    pub progress: f64,
    /// Short description of the current work, or of the end of the task.
    pub message: String,
    /// Time of submission.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Start of the latest attempt.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// Time at which the task ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Timestamp>,
    /// Result of a completed task.
    #[schema(value_type = Option<std::collections::BTreeMap<String, serde_json::Value>>)]
    pub result: Option<Box<RawValue>>,
    /// Error of a failed task, or of the last failed attempt.
    pub error: Option<String>,
    /// Input path as submitted.
    pub input_file_path: Option<String>,
    /// Output path as submitted.
    pub output_file_path: Option<String>,
    /// Parameters, including defaults.
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    pub parameters: Box<RawValue>,
    /// Time of the last change to this record.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Number of attempts started so far.
    pub attempt: u32,
    /// Maximum number of attempts.
    pub max_attempts: u32,
    /// Time limit of one attempt in seconds; `null` for none.
    pub timeout_seconds: Option<f64>,
    /// Time at which a client requested cancellation.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub cancel_requested_at: Option<Timestamp>,
    /// Priority; higher numbers run first.
    pub priority: i32,
    /// Labels as submitted.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub tags: Box<RawValue>,
    /// Earliest start of the task, as submitted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub run_at: Option<Timestamp>,
    /// Id of the task that this one retries.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub retry_of: Option<TaskId>,
    /// Id of the latest task that retries this one.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub retried_by: Option<TaskId>,
    /// Position of a ready pending task in the queue, from 1. Exact up to 1000, capped at 1001.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u32>,
    /// Reason that a pending task does not run yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_because: Option<String>,
    /// Estimated time in seconds from `updated_at` to the end of a running task, extrapolated from
    /// its progress. Absent without progress, and once that time is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
}

impl TaskInfo {
    /// Total length of all texts in bytes, which dominates the size of a large record.
    pub(crate) fn text_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.message.len()
            + self.parameters.get().len()
            + self.tags.get().len()
            + self.result.as_ref().map_or(0, |result| result.get().len())
            + text(&self.error)
            + text(&self.input_file_path)
            + text(&self.output_file_path)
    }
}
