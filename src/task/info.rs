//! What is known of one task: the record that clients poll.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use strum::{EnumString, IntoStaticStr, VariantArray};
use uuid::Uuid;

/// Names one task. A UUID of version 7, so that ids sort by the time of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId(Uuid);

impl TaskId {
    /// An id that no other task has.
    pub fn new() -> Self {
        Self(new_uuid())
    }
}

/// A UUID of version 7. Those of a clock before 1970, which they cannot express, are of 1970.
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

/// Where a task stands in its life.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    utoipa::ToSchema,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum TaskStatus {
    /// Stored, and waiting for its turn.
    Pending,
    /// An attempt is under way.
    Running,
    /// Ended with a result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended because a client asked for it.
    Cancelled,
}

impl TaskStatus {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The name on the wire and in the database.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether a task in this state will never change again.
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// A moment, in whole microseconds UTC. Written as RFC 3339 with six digits and `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The present moment by the wall clock.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// From microseconds since the Unix epoch.
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
        // The database could hold a number outside of jiff's years -9999 to 9999.
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
            serde::de::Error::custom(format!("{expected}, found `{text}`: {error}"))
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Everything that clients see of a task.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct TaskInfo {
    /// Names the task.
    #[schema(value_type = String, format = "uuid")]
    pub task_id: TaskId,
    /// One of `GET /task-types`, or a name that another version of this server stored.
    pub task_type: String,
    /// Where the task stands.
    pub status: TaskStatus,
    /// Percent done, 0 to 100.
    pub progress: f64,
    /// What the task is doing, or how it ended, in a sentence.
    pub message: String,
    /// When the task was submitted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When the latest attempt began.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When the task reached its final status.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Timestamp>,
    /// What a completed task returned.
    #[schema(value_type = Option<std::collections::BTreeMap<String, serde_json::Value>>)]
    pub result: Option<Box<RawValue>>,
    /// Why a failed task failed, or why its last attempt did.
    pub error: Option<String>,
    /// The input path as it was sent.
    pub input_file_path: Option<String>,
    /// The output path as it was sent.
    pub output_file_path: Option<String>,
    /// The parameters, with the defaults filled in.
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    pub parameters: Box<RawValue>,
    /// When anything in this record last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// How many attempts have begun.
    pub attempt: u32,
    /// How many attempts there are at the most.
    pub max_attempts: u32,
    /// How long one attempt may take, in seconds; `null` for no limit.
    pub timeout_seconds: Option<f64>,
    /// When a client asked for cancellation.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub cancel_requested_at: Option<Timestamp>,
    /// Tasks with a higher number run first.
    pub priority: i32,
    /// Free labels, as they were sent.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub tags: Box<RawValue>,
    /// The time before which the task was not to run.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub run_at: Option<Timestamp>,
    /// The task that this one repeats.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub retry_of: Option<TaskId>,
    /// The latest task that repeats this one.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub retried_by: Option<TaskId>,
    /// Of a pending task that is ready: its place in the queue, 1 for the next to run. Exact up to
    /// 1000; 1001 means that or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u32>,
    /// Of a pending task: what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_because: Option<String>,
    /// Of a running task that has reported progress: time from `updated_at` to its end in seconds, if it goes
    /// on as it did. Absent once that time is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
}

impl TaskInfo {
    /// Length of all texts in bytes: what may be large of a record, in memory and as JSON.
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
