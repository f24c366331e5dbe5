//! Events, and the selection of events for a stream.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::manager::attempt::Stamp;
use crate::store::ListFilter;
use crate::task::{TaskId, TaskInfo, TaskStatus};

/// A change of a task, and its state afterwards.
#[derive(Debug)]
pub(crate) struct Event {
    /// Position in the log.
    pub(super) number: u64,
    pub(crate) kind: EventKind,
    /// Previous status; `None` for a new task.
    from: Option<TaskStatus>,
    pub(super) stamp: Stamp,
    pub(crate) info: TaskInfo,
    json: OnceLock<String>,
    tags: OnceLock<HashMap<String, String>>,
}

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// The task changed its status, or this is its state at the start of the stream.
    State,
    /// A running task reported progress, or was asked to stop.
    Progress,
}

impl Event {
    pub(super) fn new(
        number: u64,
        kind: EventKind,
        from: Option<TaskStatus>,
        stamp: Stamp,
        info: TaskInfo,
    ) -> Self {
        Self { number, kind, from, stamp, info, json: OnceLock::new(), tags: OnceLock::new() }
    }

    /// The task as JSON, rendered once for all streams.
    pub(crate) fn json(&self) -> &str {
        self.json.get_or_init(|| {
            let json = serde_json::to_string(&self.info);
            json.expect("a task has no keys that JSON cannot express")
        })
    }

    /// Tags of the task, parsed once for all streams.
    fn tags(&self) -> &HashMap<String, String> {
        self.tags.get_or_init(|| serde_json::from_str(self.info.tags.get()).unwrap_or_default())
    }

    /// Approximate memory, in bytes.
    pub(super) fn size(&self) -> usize {
        // The texts are in the task and in its JSON.
        1024 + 2 * self.info.text_bytes()
    }
}

/// Cursor of a client: it has seen all events up to this number of this run of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventId {
    pub(super) run: u64,
    pub(super) number: u64,
}

impl EventId {
    /// For a client that sends an id that no server has issued.
    pub(crate) const UNKNOWN: Self = Self { run: 0, number: 0 };
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.run, self.number)
    }
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (run, number) = text.split_once('-').ok_or(())?;
        let run = u64::from_str_radix(run, 16).map_err(|_| ())?;
        Ok(Self { run, number: number.parse().map_err(|_| ())? })
    }
}

/// Selection of events for a stream.
#[derive(Clone, Debug)]
pub(crate) enum Interest {
    Task(TaskId),
    /// Events of tasks that match now, or matched before the event.
    Matching(ListFilter),
}

impl Interest {
    pub(super) fn covers(&self, event: &Event) -> bool {
        match self {
            Self::Task(id) => event.info.task_id == *id,
            Self::Matching(filter) => {
                let has_tag =
                    |(key, value): &(String, String)| event.tags().get(key) == Some(value);
                let matches = |status| filter.matches(&event.info, status);
                (matches(event.info.status) || event.from.is_some_and(matches))
                    && filter.tags.iter().all(has_tag)
            }
        }
    }
}
