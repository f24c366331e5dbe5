//! One row of the tasks table.

use std::str::FromStr;
use std::sync::LazyLock;

use serde_json::value::RawValue;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};

use super::NewTask;
use super::claims::RUNNING_MESSAGE;
use crate::task::{Task, TaskInfo, TaskStatus, Timestamp};

/// The columns that [`TaskRecord`] is read from, in its order.
macro_rules! columns {
    () => {
        "seq, epoch, interruptions, due_at, held, id, task_type, status, progress, message, created_at, \
         started_at, completed_at, result, error, input_file_path, output_file_path, parameters, \
         updated_at, attempt, max_attempts, timeout_seconds, cancel_requested_at, priority, tags, run_at, retry_of, \
         retried_by"
    };
}
pub(super) use columns;

/// A stored task: what clients see of it, and what guards its transitions.
#[derive(Clone, Debug)]
pub(crate) struct TaskRecord {
    /// Place in the order of submission.
    pub(crate) seq: i64,
    /// Counts claims.
    pub(crate) epoch: i64,
    /// How often the server died while the task ran.
    pub(crate) interruptions: i64,
    /// Not before this time.
    pub(crate) due_at: Option<Timestamp>,
    /// Whether this build cannot run the task.
    pub(crate) held: bool,
    /// What clients see.
    pub(crate) info: TaskInfo,
}

impl NewTask {
    /// The record and the code of a task that was stored, and claimed at this time if there is one.
    pub(super) fn into_record(
        self,
        seq: i64,
        claimed: Option<Timestamp>,
    ) -> (TaskRecord, Box<dyn Task>) {
        let info = TaskInfo {
            task_id: self.id,
            task_type: self.task_type.to_owned(),
            status: if claimed.is_some() { TaskStatus::Running } else { TaskStatus::Pending },
            progress: 0.0,
            message: claimed.map_or("", |_| RUNNING_MESSAGE).to_owned(),
            created_at: self.created_at,
            started_at: claimed,
            completed_at: None,
            result: None,
            error: None,
            input_file_path: self.input_file_path,
            output_file_path: self.output_file_path,
            parameters: self.parameters,
            updated_at: claimed.unwrap_or(self.created_at),
            attempt: u32::from(claimed.is_some()),
            max_attempts: self.max_attempts,
            timeout_seconds: self.timeout_seconds,
            cancel_requested_at: None,
            priority: self.priority,
            tags: self.tags,
            run_at: self.run_at,
            retry_of: self.retry.map(|retry| retry.of),
            retried_by: None,
            queue_position: None,
            waiting_because: None,
            eta_seconds: None,
        };
        let epoch = i64::from(claimed.is_some());
        let record =
            TaskRecord { seq, epoch, interruptions: 0, due_at: self.run_at, held: false, info };
        (record, self.code)
    }
}

impl TaskRecord {
    /// Whether this may be what killed the server before: it died twice while the task ran.
    pub(crate) fn is_suspect(&self) -> bool {
        self.interruptions >= 2
    }

    pub(super) fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let mut row = Columns { row, next: 0 };
        Ok(Self {
            seq: row.take()?,
            epoch: row.take()?,
            interruptions: row.take()?,
            due_at: row.optional_time()?,
            held: row.take()?,
            info: TaskInfo {
                task_id: row.parse()?,
                task_type: row.take()?,
                status: row.parse()?,
                progress: row.take()?,
                message: row.take()?,
                created_at: row.time()?,
                started_at: row.optional_time()?,
                completed_at: row.optional_time()?,
                result: row.optional_json()?,
                error: row.take()?,
                input_file_path: row.take()?,
                output_file_path: row.take()?,
                parameters: row.json()?,
                updated_at: row.time()?,
                attempt: row.take()?,
                max_attempts: row.take()?,
                timeout_seconds: row.take()?,
                cancel_requested_at: row.optional_time()?,
                priority: row.take()?,
                tags: row.json()?,
                run_at: row.optional_time()?,
                retry_of: row.optional_parse()?,
                retried_by: row.optional_parse()?,
                queue_position: None,
                waiting_because: None,
                eta_seconds: None,
            },
        })
    }
}

/// Places of the columns that may hold much text. Looking them up by name would cost each row of a list more
/// than reading them does.
static TEXTS: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let texts = "message result error input_file_path output_file_path parameters tags";
    let columns = columns!().split(", ").enumerate();
    let places = columns.filter(|(_, name)| texts.split(' ').any(|text| text == *name));
    places.map(|(place, _)| place).collect()
});

/// Length of all texts of a row in bytes: what [`TaskInfo::text_bytes`] will be.
pub(super) fn text_bytes(row: &SqliteRow) -> sqlx::Result<usize> {
    let length = |&place: &usize| Ok(row.try_get::<Option<&str>, _>(place)?.map_or(0, str::len));
    TEXTS.iter().map(length).sum()
}

/// The place of a row in the order of submission.
pub(super) fn seq(row: &SqliteRow) -> sqlx::Result<i64> {
    Columns { row, next: 0 }.take()
}

/// Reads a row's columns from left to right.
struct Columns<'r> {
    row: &'r SqliteRow,
    next: usize,
}

impl<'r> Columns<'r> {
    fn take<T: Decode<'r, Sqlite> + Type<Sqlite>>(&mut self) -> sqlx::Result<T> {
        let index = self.next;
        self.next += 1;
        self.row.try_get(index)
    }

    fn parse<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &mut self,
    ) -> sqlx::Result<T> {
        let text: &str = self.take()?;
        text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }

    fn optional_parse<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &mut self,
    ) -> sqlx::Result<Option<T>> {
        let text: Option<&str> = self.take()?;
        let parsed = text.map(|text| text.parse()).transpose();
        parsed.map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }

    fn time(&mut self) -> sqlx::Result<Timestamp> {
        self.take().map(Timestamp::from_micros)
    }

    fn optional_time(&mut self) -> sqlx::Result<Option<Timestamp>> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp::from_micros))
    }

    fn json(&mut self) -> sqlx::Result<Box<RawValue>> {
        raw_json(self.take()?)
    }

    fn optional_json(&mut self) -> sqlx::Result<Option<Box<RawValue>>> {
        self.take::<Option<String>>()?.map(raw_json).transpose()
    }
}

fn raw_json(text: String) -> sqlx::Result<Box<RawValue>> {
    RawValue::from_string(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_texts_of_a_row_are_counted() {
        let names: Vec<_> = columns!().split(", ").collect();
        let texts: Vec<_> = TEXTS.iter().map(|&place| names[place]).collect();
        assert_eq!(texts.len(), 7, "{texts:?}");
        assert_eq!(names[0], "seq");
    }
}
