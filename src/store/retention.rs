//! Erases what is old, in steps that are short enough not to hold up other changes.

use sqlx::{Row, SqliteConnection};

use super::EraseStep;
use super::rows::OverRows;
use super::transitions::parse;
use crate::task::TaskStatus;

/// How many rows one step looks at.
const STEP: i64 = 500;

/// Erases tasks and what refers to them.
pub(super) const ERASE: &[OverRows] = &[
    OverRows {
        columns: &["seq"],
        sql: "DELETE FROM task_tags WHERE (key, value, task_seq) IN \
             (SELECT tag.key, tag.value, tasks.seq FROM tasks JOIN new USING (seq), \
                     json_each(tags) AS tag)",
    },
    OverRows {
        columns: &["seq"],
        sql: "DELETE FROM idempotency_keys WHERE task_id IN \
             (SELECT id FROM tasks JOIN new USING (seq))",
    },
    OverRows {
        columns: &["seq"],
        sql: "DELETE FROM tasks WHERE seq IN (SELECT seq FROM new) \
             AND +status IN ('completed', 'failed', 'cancelled') RETURNING status",
    },
];

/// What one step came to.
pub(super) struct Erased {
    /// Where the next step begins, if there is more to look at.
    pub(super) next: Option<i64>,
    /// Of the tasks that were erased.
    pub(super) statuses: Vec<TaskStatus>,
}

/// Erases one step's worth.
///
/// Tasks are walked in order of submission, oldest first, up to the first one that was submitted
/// after the cutoff: it cannot have ended before, and an index by the time of the end would cost
/// every task one more write.
pub(super) async fn erase(
    connection: &mut SqliteConnection,
    step: &EraseStep,
) -> sqlx::Result<Erased> {
    let mut statuses = Vec::new();
    let keys = sqlx::query(
        "DELETE FROM idempotency_keys WHERE key IN \
         (SELECT key FROM idempotency_keys WHERE created_at < ?1 LIMIT ?2)",
    )
    .bind(step.keys_cutoff.as_micros())
    .bind(STEP)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    let more_keys = (keys == STEP as u64).then_some(step.after);
    let Some(cutoff) = step.cutoff else { return Ok(Erased { next: more_keys, statuses }) };
    let rows = sqlx::query(
        "SELECT seq, created_at, completed_at FROM tasks WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )
    .bind(step.after)
    .bind(STEP)
    .fetch_all(&mut *connection)
    .await?;
    let mut old = Vec::new();
    let mut last = None;
    for row in &rows {
        let (seq, created_at): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if created_at >= cutoff.as_micros() {
            last = None;
            break;
        }
        last = Some(seq);
        if row.try_get::<Option<i64>, _>(2)?.is_some_and(|end| end < cutoff.as_micros()) {
            old.push(seq);
        }
    }
    if !old.is_empty() {
        for delete in ERASE {
            let delete = delete.with(&old, |row, seq| {
                row.bind(*seq);
            });
            for row in &delete.fetch_all(&mut *connection).await? {
                statuses.push(parse(row.try_get(0)?)?);
            }
        }
    }
    let next = last.filter(|_| rows.len() == STEP as usize).or(more_keys);
    Ok(Erased { next, statuses })
}
