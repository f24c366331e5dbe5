//! Finds and erases what is old, in steps that are short enough not to hold up other changes.

use sqlx::{Row, SqliteConnection};

use super::rows::OverRows;
use super::transitions::parse;
use super::{EraseStep, Store, StoreError};
use crate::task::{TaskStatus, Timestamp};

/// Rows that one step reads or erases.
pub(crate) const ERASE_STEP: usize = 500;

/// Erases tasks and their tags. Idempotency keys stay: they have a lifetime of their own.
pub(super) const ERASE: &[OverRows] = &[
    OverRows {
        columns: &["seq"],
        sql: "DELETE FROM task_tags WHERE (key, value, task_seq) IN \
             (SELECT tag.key, tag.value, tasks.seq FROM tasks JOIN new USING (seq), \
                     json_each(tags) AS tag)",
    },
    OverRows {
        columns: &["seq"],
        sql: "DELETE FROM tasks WHERE seq IN (SELECT seq FROM new) \
             AND +status IN ('completed', 'failed', 'cancelled') RETURNING status",
    },
];

/// Consecutive tasks, by when they ended.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    /// Number of tasks in it.
    pub(crate) tasks: usize,
    /// The `seq` of the last one.
    pub(crate) last: i64,
    /// Tasks that ended before the cutoff, by `seq`.
    pub(crate) old: Vec<i64>,
    /// The earliest end of the others, if any of them has ended.
    pub(crate) next_end: Option<Timestamp>,
}

impl Store {
    /// Reads up to [`ERASE_STEP`] tasks after one `seq` and up to another, in order. A finished task
    /// never changes, so what is old here is old when it is erased.
    pub(crate) async fn stretch(
        &self,
        after: i64,
        up_to: i64,
        cutoff: Timestamp,
    ) -> Result<Stretch, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, completed_at FROM tasks WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
        )
        .bind(after)
        .bind(up_to)
        .bind(ERASE_STEP as i64)
        .fetch_all(self.readers.points())
        .await?;
        let mut stretch = Stretch { tasks: rows.len(), ..Stretch::default() };
        for row in &rows {
            stretch.last = row.try_get(0)?;
            let Some(end) = row.try_get::<Option<i64>, _>(1)?.map(Timestamp::from_micros) else {
                continue;
            };
            if end < cutoff {
                stretch.old.push(stretch.last);
            } else {
                stretch.next_end = Some(stretch.next_end.map_or(end, |next| next.min(end)));
            }
        }
        Ok(stretch)
    }
}

/// What one step came to.
pub(super) struct Erased {
    /// Whether more keys may be old.
    pub(super) more_keys: bool,
    /// Of the tasks that were erased.
    pub(super) statuses: Vec<TaskStatus>,
}

/// Erases one step's worth.
pub(super) async fn erase(
    connection: &mut SqliteConnection,
    step: &EraseStep,
) -> sqlx::Result<Erased> {
    let keys = sqlx::query(
        "DELETE FROM idempotency_keys WHERE key IN \
         (SELECT key FROM idempotency_keys WHERE created_at < ?1 LIMIT ?2)",
    )
    .bind(step.keys_cutoff.as_micros())
    .bind(ERASE_STEP as i64)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    let mut statuses = Vec::new();
    if !step.tasks.is_empty() {
        for delete in ERASE {
            let delete = delete.with(&step.tasks, |row, seq| {
                row.bind(*seq);
            });
            for row in &delete.fetch_all(&mut *connection).await? {
                statuses.push(parse(row.try_get(0)?)?);
            }
        }
    }
    Ok(Erased { more_keys: keys == ERASE_STEP as u64, statuses })
}
