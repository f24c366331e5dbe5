//! Lists of tasks: filters, pages and queue positions.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use super::record::TaskRecord;
use crate::task::{TaskInfo, TaskStatus, TaskType, Timestamp};

/// Maximum size of a page. Typical pages are far smaller; a thousand results of 1 MiB each would
/// exhaust memory.
pub(crate) const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Largest queue position that is computed.
pub(crate) const MAX_POSITION: u32 = 1000;

/// Queue positions of ready tasks, by `seq`, counted from 1.
pub(crate) type Positions = HashMap<i64, u32>;

/// Filter of a list. No statuses or no types means all.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListFilter {
    pub(crate) statuses: Vec<TaskStatus>,
    pub(crate) task_types: Vec<TaskType>,
    /// Inclusive.
    pub(crate) created_after: Option<Timestamp>,
    /// Exclusive.
    pub(crate) created_before: Option<Timestamp>,
    /// Tags that a task must have, all of them.
    pub(crate) tags: Vec<(String, String)>,
    /// Only tasks with a retry, or only those without.
    pub(crate) retried: Option<bool>,
    pub(crate) cursor: Option<Cursor>,
    /// Maximum number of tasks in a page.
    pub(crate) limit: usize,
}

impl ListFilter {
    /// Whether the filter accepts a task with this status, ignoring its tags.
    pub(crate) fn matches(&self, info: &TaskInfo, status: TaskStatus) -> bool {
        let of_type = |name: &TaskType| name.name() == info.task_type;
        (self.statuses.is_empty() || self.statuses.contains(&status))
            && (self.task_types.is_empty() || self.task_types.iter().any(of_type))
            && self.created_after.is_none_or(|after| info.created_at >= after)
            && self.created_before.is_none_or(|before| info.created_at < before)
            && self.retried.is_none_or(|retried| info.retried_by.is_some() == retried)
    }
}

/// Keyset cursor: the next page holds the tasks submitted before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(super) seq: i64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.seq.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().ok().filter(|seq| *seq >= 0).map(|seq| Self { seq }).ok_or(())
    }
}

/// One page of a list, newest first.
#[derive(Debug, Default)]
pub(crate) struct TaskPage {
    pub(crate) records: Vec<TaskRecord>,
    /// Start of the next page; `None` at the end of the list. Even a short or empty page can have a
    /// next one.
    pub(crate) next: Option<Cursor>,
}
