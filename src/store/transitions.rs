//! The SQL of state changes after the submission, but for claims.
//!
//! Each statement changes a whole batch, handed over as one JSON array, and is a compare-and-set:
//! its `WHERE` names the status (and for a running attempt the epoch) that it starts from. A row
//! that is elsewhere by now is left alone, and its absence from the answer says so.
//!
//! The plus in `+status` keeps SQLite from walking along the index of statuses, where it may read
//! every pending task to find one.

use std::collections::HashMap;
use std::error::Error;
use std::str::FromStr;

use serde::Serialize;
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::{AttemptEnd, CancelEffect, Cancellation, StoredProgress};
use crate::task::{TaskId, TaskStatus, Timestamp};

pub(super) const CANCELLED_MESSAGE: &str = "Task cancelled by user";

const PROGRESS: &str = "UPDATE tasks SET progress = new.value ->> 2, message = new.value ->> 3, \
                      updated_at = new.value ->> 4 \
     FROM json_each(?1) AS new \
     WHERE seq = new.value ->> 0 AND +status = 'running' AND epoch = new.value ->> 1";

/// Writes down how far running attempts are.
pub(super) async fn progress(
    connection: &mut SqliteConnection,
    progress: &[&StoredProgress],
) -> sqlx::Result<()> {
    if progress.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = progress
        .iter()
        .map(|new| (new.seq, new.epoch, new.percent, &new.message, new.updated_at.as_micros()))
        .collect();
    sqlx::query(PROGRESS).bind(to_json(&rows)?).execute(connection).await?;
    Ok(())
}

// Cancellation wins over whatever else the attempt came to, so it is decided here, where the
// wish and the end meet in one statement.
const END: &str = "WITH ended AS MATERIALIZED ( \
         SELECT value ->> 0 AS seq, value ->> 1 AS epoch, value ->> 2 AS status, \
                value ->> 3 AS progress, value ->> 4 AS message, value ->> 5 AS result, \
                value ->> 6 AS error, value ->> 7 AS due_at, value ->> 8 AS given_back, \
                coalesce(tasks.cancel_requested_at, value ->> 9) AS cancelled_at, \
                value ->> 10 AS is_final \
         FROM json_each(?1) JOIN tasks ON tasks.seq = value ->> 0) \
     UPDATE tasks SET \
         status = iif(cancelled_at IS NULL, ended.status, 'cancelled'), \
         completed_at = iif(cancelled_at IS NULL AND NOT is_final, NULL, ?2), \
         message = iif(cancelled_at IS NULL, ended.message, ?3), \
         result = iif(cancelled_at IS NULL, ended.result, NULL), \
         error = iif(cancelled_at IS NULL, ended.error, NULL), \
         due_at = iif(cancelled_at IS NULL, ended.due_at, NULL), \
         cancel_requested_at = cancelled_at, \
         progress = ended.progress, \
         attempt = attempt - given_back, \
         updated_at = ?2 \
     FROM ended \
     WHERE tasks.seq = ended.seq AND +tasks.status = 'running' AND tasks.epoch = ended.epoch \
     RETURNING seq, status";

/// Ends attempts. Tells for each that still owned its task, by `seq`, the status that came of it.
pub(super) async fn end(
    connection: &mut SqliteConnection,
    ends: &[&AttemptEnd],
    now: Timestamp,
) -> sqlx::Result<HashMap<i64, TaskStatus>> {
    if ends.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<_> = ends
        .iter()
        .map(|end| {
            json!([
                end.seq,
                end.epoch,
                end.status,
                end.progress,
                end.message,
                end.result.as_ref().map(|result| result.get()),
                end.error,
                end.due_at.map(Timestamp::as_micros),
                i32::from(end.attempt_given_back),
                end.cancel_requested_at.map(Timestamp::as_micros),
                end.status.is_final(),
            ])
        })
        .collect();
    let rows = sqlx::query(END)
        .bind(to_json(&rows)?)
        .bind(now.as_micros())
        .bind(CANCELLED_MESSAGE)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, parse(row.try_get(1)?)?))).collect()
}

/// Makes waiting tasks ready.
pub(super) async fn promote(connection: &mut SqliteConnection, seqs: &[i64]) -> sqlx::Result<()> {
    if seqs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE tasks SET due_at = NULL \
         WHERE seq IN (SELECT value FROM json_each(?1)) AND +status = 'pending'",
    )
    .bind(to_json(&seqs)?)
    .execute(connection)
    .await?;
    Ok(())
}

const CANCEL: &str = "UPDATE tasks SET \
         cancel_requested_at = coalesce(cancel_requested_at, wish.value ->> 1), \
         completed_at = iif(status = 'pending', wish.value ->> 1, NULL), \
         message = iif(status = 'pending', ?2, message), \
         status = iif(status = 'pending', 'cancelled', status), \
         due_at = NULL, \
         updated_at = wish.value ->> 1 \
     FROM json_each(?1) AS wish \
     WHERE tasks.id = wish.value ->> 0 \
       AND (+status = 'pending' OR (+status = 'running' AND wish.value ->> 2)) \
     RETURNING tasks.id, status, seq";

/// Cancels pending tasks, and notes the wish on running ones whose runner has accepted it. Tells
/// the effect on each.
pub(super) async fn cancel(
    connection: &mut SqliteConnection,
    cancels: &[&Cancellation],
) -> sqlx::Result<HashMap<TaskId, CancelEffect>> {
    let mut effects = HashMap::with_capacity(cancels.len());
    if cancels.is_empty() {
        return Ok(effects);
    }
    let rows: Vec<_> = cancels
        .iter()
        .map(|wish| (wish.id, wish.at.as_micros(), i32::from(wish.accepted_by_runner)))
        .collect();
    let rows = to_json(&rows)?;
    let changed =
        sqlx::query(CANCEL).bind(&rows).bind(CANCELLED_MESSAGE).fetch_all(&mut *connection).await?;
    for row in &changed {
        let effect = match parse(row.try_get(1)?)? {
            TaskStatus::Cancelled => CancelEffect::Cancelled { seq: row.try_get(2)? },
            _ => CancelEffect::Requested,
        };
        effects.insert(parse(row.try_get(0)?)?, effect);
    }
    if effects.len() < cancels.len() {
        let others = sqlx::query(
            "SELECT id, status FROM tasks WHERE id IN (SELECT value ->> 0 FROM json_each(?1))",
        )
        .bind(&rows)
        .fetch_all(connection)
        .await?;
        for row in &others {
            let id = parse(row.try_get(0)?)?;
            let effect = match parse(row.try_get(1)?)? {
                TaskStatus::Pending | TaskStatus::Running => CancelEffect::NotAccepted,
                status => CancelEffect::AlreadyFinal(status),
            };
            effects.entry(id).or_insert(effect);
        }
    }
    Ok(effects)
}

pub(super) fn to_json<T: Serialize + ?Sized>(rows: &T) -> sqlx::Result<String> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

pub(super) fn parse<T: FromStr<Err: Error + Send + Sync + 'static>>(text: &str) -> sqlx::Result<T> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, QueryBuilder};

    use super::*;
    use crate::store::claims::{SUSPECT, push_ready};

    #[tokio::test]
    async fn no_statement_reads_more_than_it_needs() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let schema = include_str!("../../migrations/sqlite/0001_tasks.sql");
        sqlx::raw_sql(schema).execute(&mut connection).await.unwrap();
        let mut ready = QueryBuilder::new("");
        push_ready(&mut ready, &[("a", 7), ("b", 8)], 9);
        // The walks are merged in memory, a handful of numbers for each task that is claimed.
        let ready = ready.sql().as_str().replace(") ORDER BY priority DESC, seq LIMIT", ") LIMIT");
        for sql in [PROGRESS, END, CANCEL, SUSPECT, &ready] {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let rows = sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            for step in &plan {
                let reads_all = step == "SCAN tasks" || step.contains("(status=?)");
                assert!(!reads_all && !step.contains("TEMP B-TREE"), "{sql}\n{plan:#?}");
            }
        }
    }
}
