//! Lists of tasks: their filters, pages and positions.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use super::record::TaskRecord;
use crate::task::{TaskInfo, TaskStatus, TaskType, Timestamp};

/// A page ends when its tasks are this large. Far beyond a page of usual tasks, while a thousand results
/// of a mebibyte do not fit into memory at once.
pub(crate) const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Positions in the queue beyond this are not counted.
pub(crate) const MAX_POSITION: u32 = 1000;

/// Positions of ready tasks in the queue, by `seq`, counted from 1.
pub(crate) type Positions = HashMap<i64, u32>;

/// Filter of a list. Empty lists of statuses and types mean all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListFilter {
    pub(crate) statuses: Vec<TaskStatus>,
    pub(crate) task_types: Vec<TaskType>,
    /// Submitted at this time or later.
    pub(crate) created_after: Option<Timestamp>,
    /// Submitted before this time.
    pub(crate) created_before: Option<Timestamp>,
    /// Tasks that have all of these tags.
    pub(crate) tags: Vec<(String, String)>,
    /// Tasks that have a retry, or that have none.
    pub(crate) retried: Option<bool>,
    pub(crate) cursor: Option<Cursor>,
    /// Most tasks in a page.
    pub(crate) limit: usize,
}

impl ListFilter {
    /// Whether the list shows a task with this status, whatever its tags.
    pub(crate) fn matches(&self, info: &TaskInfo, status: TaskStatus) -> bool {
        let of_type = |name: &TaskType| name.name() == info.task_type;
        (self.statuses.is_empty() || self.statuses.contains(&status))
            && (self.task_types.is_empty() || self.task_types.iter().any(of_type))
            && self.created_after.is_none_or(|after| info.created_at >= after)
            && self.created_before.is_none_or(|before| info.created_at < before)
            && self.retried.is_none_or(|retried| info.retried_by.is_some() == retried)
    }
}

/// Position in a list: the next page holds the tasks that were submitted before this one.
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
        match text.parse() {
            Ok(seq @ 0..) => Ok(Self { seq }),
            _ => Err(()),
        }
    }
}

/// One page of a list, newest task first.
#[derive(Debug, Default)]
pub(crate) struct TaskPage {
    pub(crate) records: Vec<TaskRecord>,
    /// Start of the next page; `None` at the end of the list. A page may be short, even empty, and
    /// still have a next one.
    pub(crate) next: Option<Cursor>,
}
