//! Reads: they have connections of their own and never wait for the writer.

use std::fmt;
use std::str::FromStr;

use sqlx::{QueryBuilder, Sqlite};

use super::record::columns;
use super::{Store, StoreError, TaskRecord};
use crate::task::{TaskId, TaskStatus, TaskType, Timestamp};

/// Which tasks a list shows. Empty lists of statuses and types mean all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListFilter {
    pub(crate) statuses: Vec<TaskStatus>,
    pub(crate) task_types: Vec<TaskType>,
    /// Submitted at this time or later.
    pub(crate) created_after: Option<Timestamp>,
    /// Submitted before this time.
    pub(crate) created_before: Option<Timestamp>,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) limit: usize,
}

/// The last task of a page: the next page begins behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    seq: i64,
    created_at: Timestamp,
}

impl Cursor {
    pub(crate) fn behind(record: &TaskRecord) -> Self {
        Self { seq: record.seq, created_at: record.info.created_at }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.created_at.as_micros(), self.seq)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (created_at, seq) = text.rsplit_once('-').ok_or(())?;
        let created_at = created_at.parse().map_err(|_| ())?;
        let seq = seq.parse().map_err(|_| ())?;
        Ok(Self { seq, created_at: Timestamp::from_micros(created_at) })
    }
}

impl ListFilter {
    /// Whether the list is walked by time of submission. That is the order of `seq` too unless the
    /// clock was set back, but only its index finds a range of times without reading the rest.
    fn by_time(&self) -> bool {
        (self.created_after.is_some() || self.created_before.is_some())
            && self.statuses.is_empty()
            && self.task_types.is_empty()
    }

    /// Where only types are wanted each status is walked, because the index by type goes on with
    /// the status.
    fn statuses_to_walk(&self) -> Vec<Option<TaskStatus>> {
        let wanted = match (self.statuses.is_empty(), self.task_types.is_empty()) {
            (true, true) => return vec![None],
            (true, false) => TaskStatus::ALL,
            (false, _) => &self.statuses,
        };
        wanted.iter().copied().map(Some).collect()
    }

    fn types_to_walk(&self) -> Vec<Option<TaskType>> {
        if self.task_types.is_empty() {
            return vec![None];
        }
        self.task_types.iter().copied().map(Some).collect()
    }
}

impl Store {
    /// One task.
    pub(crate) async fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        let row = sqlx::query(concat!("SELECT ", columns!(), " FROM tasks WHERE id = ?1"))
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(TaskRecord::from_row).transpose()?)
    }

    /// The pending task that was submitted last.
    pub(crate) async fn newest_pending(&self) -> Result<Option<TaskRecord>, StoreError> {
        let newest =
            ListFilter { statuses: vec![TaskStatus::Pending], limit: 1, ..ListFilter::default() };
        Ok(self.list(&newest).await?.pop())
    }

    /// Tasks, newest first. One index walk for each combination of a status and a type, merged:
    /// the time does not depend on how many tasks there are.
    pub(crate) async fn list(&self, filter: &ListFilter) -> Result<Vec<TaskRecord>, StoreError> {
        let mut query = QueryBuilder::new("");
        let mut first = true;
        for &status in &filter.statuses_to_walk() {
            for &task_type in &filter.types_to_walk() {
                query.push(if first { "" } else { " UNION ALL " });
                first = false;
                push_walk(&mut query, filter, status, task_type);
            }
        }
        query.push(order(filter)).push_bind(filter.limit as i64);
        let rows = query.build().fetch_all(&self.readers).await?;
        Ok(rows.iter().map(TaskRecord::from_row).collect::<Result<_, _>>()?)
    }
}

fn push_walk(
    query: &mut QueryBuilder<Sqlite>,
    filter: &ListFilter,
    status: Option<TaskStatus>,
    task_type: Option<TaskType>,
) {
    query.push(concat!("SELECT * FROM (SELECT ", columns!(), " FROM tasks WHERE true"));
    if let Some(status) = status {
        query.push(" AND status = ").push_bind(status.name());
    }
    if let Some(task_type) = task_type {
        query.push(" AND task_type = ").push_bind(task_type.name());
    }
    if let Some(after) = filter.created_after {
        query.push(" AND created_at >= ").push_bind(after.as_micros());
    }
    if let Some(before) = filter.created_before {
        query.push(" AND created_at < ").push_bind(before.as_micros());
    }
    match filter.cursor {
        Some(cursor) if filter.by_time() => {
            query.push(" AND (created_at, seq) < (").push_bind(cursor.created_at.as_micros());
            query.push(", ").push_bind(cursor.seq).push(")");
        }
        Some(cursor) => {
            query.push(" AND seq < ").push_bind(cursor.seq);
        }
        None => {}
    }
    query.push(order(filter)).push_bind(filter.limit as i64).push(")");
}

fn order(filter: &ListFilter) -> &'static str {
    if filter.by_time() {
        " ORDER BY created_at DESC, seq DESC LIMIT "
    } else {
        " ORDER BY seq DESC LIMIT "
    }
}
