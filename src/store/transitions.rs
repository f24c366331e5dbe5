//! The SQL of every state change.
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
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::idempotency;
use super::record::columns;
use super::{
    AttemptEnd, CancelEffect, Cancellation, NewTask, StoredProgress, Submitted, TaskRecord,
};
use crate::task::{TaskId, TaskStatus, Timestamp};

const RUNNING_MESSAGE: &str = "Task is running";
const CANCELLED_MESSAGE: &str = "Task cancelled by user";

/// Stores new tasks. The outcomes are in the order of `tasks`.
pub(super) async fn submit(
    connection: &mut SqliteConnection,
    tasks: &[&NewTask],
) -> sqlx::Result<Vec<Submitted>> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let known = idempotency::known(connection, tasks).await?;
    if known.is_empty() {
        return insert(connection, tasks).await;
    }
    let replay = |task: &NewTask| known.get(&task.idempotency.as_ref()?.key).cloned();
    let new: Vec<_> = tasks.iter().copied().filter(|task| replay(task).is_none()).collect();
    let mut inserted = insert(connection, &new).await?.into_iter();
    let outcome = |task: &&NewTask| match replay(task) {
        Some(replay) => Some(Submitted::Replayed(replay)),
        None => inserted.next(),
    };
    Ok(tasks.iter().map_while(outcome).collect())
}

/// Stores tasks that were not stored before.
async fn insert(
    connection: &mut SqliteConnection,
    tasks: &[&NewTask],
) -> sqlx::Result<Vec<Submitted>> {
    let rows: Vec<_> = tasks
        .iter()
        .map(|task| {
            (
                task.id,
                task.task_type,
                task.priority,
                task.parameters.get(),
                &task.input_file_path,
                &task.output_file_path,
                &task.output_key,
                task.timeout_seconds,
                task.max_attempts,
                task.created_at.as_micros(),
                &task.tags,
                task.run_at.map(Timestamp::as_micros),
                task.retry_of,
            )
        })
        .collect();
    let stored = sqlx::query(
        "INSERT INTO tasks (id, task_type, priority, parameters, input_file_path, \
                            output_file_path, output_key, timeout_seconds, max_attempts, \
                            created_at, updated_at, status, tags, run_at, due_at, retry_of) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, \
                value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 9, 'pending', \
                value -> 10, value ->> 11, value ->> 11, value ->> 12 \
         FROM json_each(?1) WHERE true \
         ON CONFLICT (output_key) WHERE output_key IS NOT NULL AND status IN ('pending', 'running') \
         DO NOTHING",
    )
    .bind(to_json(&rows)?)
    .execute(&mut *connection)
    .await?;
    let mut outcomes = Vec::with_capacity(tasks.len());
    let all_stored = stored.rows_affected() == tasks.len() as u64;
    for task in tasks {
        // Only a task with an output can have met a conflict.
        let owner = match &task.output_key {
            Some(key) if !all_stored => output_owner(connection, key).await?,
            _ => task.id,
        };
        outcomes.push(match owner == task.id {
            true => Submitted::Stored { due: due(connection, task).await? },
            false => Submitted::OutputInUse(owner),
        });
    }
    let stored = tasks.iter().copied().zip(&outcomes);
    let stored = stored.filter(|(_, outcome)| matches!(outcome, Submitted::Stored { .. }));
    let stored: Vec<_> = stored.map(|(task, _)| task).collect();
    idempotency::remember(connection, &stored).await?;
    insert_tags(connection, &stored).await?;
    Ok(outcomes)
}

/// When a stored task is to run, if not at once.
async fn due(
    connection: &mut SqliteConnection,
    task: &NewTask,
) -> sqlx::Result<Option<(i64, Timestamp)>> {
    let Some(time) = task.run_at else { return Ok(None) };
    let row = sqlx::query("SELECT seq FROM tasks WHERE id = ?1")
        .bind(task.id.to_string())
        .fetch_one(connection)
        .await?;
    Ok(Some((row.try_get(0)?, time)))
}

/// Makes stored tasks findable by their tags.
async fn insert_tags(connection: &mut SqliteConnection, tasks: &[&NewTask]) -> sqlx::Result<()> {
    let tagged: Vec<_> =
        tasks.iter().filter(|task| !task.tags.is_empty()).map(|task| task.id).collect();
    if tagged.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO task_tags (key, value, task_seq) \
         SELECT tag.key, tag.value, tasks.seq \
         FROM json_each(?1) AS tagged CROSS JOIN tasks ON tasks.id = tagged.value, \
              json_each(tasks.tags) AS tag",
    )
    .bind(to_json(&tagged)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// The unfinished task that writes this output.
async fn output_owner(connection: &mut SqliteConnection, key: &str) -> sqlx::Result<TaskId> {
    let row = sqlx::query(
        "SELECT id FROM tasks WHERE output_key = ?1 AND status IN ('pending', 'running')",
    )
    .bind(key)
    .fetch_one(connection)
    .await?;
    parse(row.try_get(0)?)
}

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
     RETURNING tasks.id, status";

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
            TaskStatus::Cancelled => CancelEffect::Cancelled,
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

/// Ready tasks that may be what killed the server before, the first `?1` of them.
const SUSPECTS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM tasks INDEXED BY tasks_suspect \
      WHERE status = 'pending' AND due_at IS NULL AND held = 0 AND interruptions >= 2 \
      ORDER BY priority DESC, seq LIMIT ?1"
);

/// How many tasks may be claimed: in all, and of each type.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) total: usize,
    /// Types that are not in here are unknown to this server and stay where they are.
    pub(super) by_type: Vec<(&'static str, usize)>,
    /// Whether one of them may be what killed the server before.
    pub(super) suspect: bool,
}

/// Ready tasks in the order in which they are to run, as many as there is room for.
pub(super) async fn ready(
    connection: &mut SqliteConnection,
    room: &Room,
) -> sqlx::Result<Vec<TaskRecord>> {
    let mut by_type = room.by_type.clone();
    let mut records = Vec::new();
    if room.suspect {
        let rows = sqlx::query(SUSPECTS).bind(1).fetch_all(&mut *connection).await?;
        records = rows.iter().map(TaskRecord::from_row).collect::<Result<_, _>>()?;
        records.retain(|record: &TaskRecord| {
            let mut types = by_type.iter_mut();
            let free = types.find(|(name, free)| *name == record.info.task_type && *free > 0);
            free.map(|(_, free)| *free -= 1).is_some()
        });
    }
    let mut query = QueryBuilder::new(concat!("SELECT ", columns!(), " FROM tasks WHERE seq IN ("));
    push_ready(&mut query, &by_type, room.total - records.len());
    query.push(") ORDER BY priority DESC, seq");
    let rows = query.build().fetch_all(connection).await?;
    for row in &rows {
        records.push(TaskRecord::from_row(row)?);
    }
    Ok(records)
}

/// The `seq` of the ready tasks that run next. Each type is walked by itself, so that one that is
/// full holds up no other; all that is read of a task is its entry in the index.
pub(super) fn push_ready(
    query: &mut QueryBuilder<Sqlite>,
    by_type: &[(&'static str, usize)],
    limit: usize,
) {
    query.push("SELECT seq FROM (");
    let mut walks = query.separated(" UNION ALL ");
    for &(name, free) in by_type.iter().filter(|(_, free)| *free > 0) {
        walks.push("SELECT * FROM (SELECT seq, priority FROM tasks INDEXED BY tasks_ready WHERE status = 'pending' AND due_at IS NULL AND held = 0 AND interruptions < 2 AND task_type = ");
        walks.push_bind_unseparated(name);
        walks.push_unseparated(" ORDER BY priority DESC, seq LIMIT ");
        walks.push_bind_unseparated(free.min(limit) as i64);
        walks.push_unseparated(")");
    }
    walks.push("SELECT 0, 0 WHERE false");
    query.push(") ORDER BY priority DESC, seq LIMIT ").push_bind(limit as i64);
}

/// Claims tasks that [`ready`] found in the same transaction.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    records: &mut [TaskRecord],
    now: Timestamp,
) -> sqlx::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let seqs: Vec<_> = records.iter().map(|record| record.seq).collect();
    sqlx::query(
        "UPDATE tasks SET status = 'running', epoch = epoch + 1, attempt = attempt + 1, \
                          started_at = ?2, updated_at = ?2, progress = 0, message = ?3 \
         WHERE seq IN (SELECT value FROM json_each(?1)) AND +status = 'pending'",
    )
    .bind(to_json(&seqs)?)
    .bind(now.as_micros())
    .bind(RUNNING_MESSAGE)
    .execute(connection)
    .await?;
    for record in records {
        record.epoch += 1;
        let info = &mut record.info;
        info.attempt += 1;
        info.status = TaskStatus::Running;
        info.started_at = Some(now);
        info.updated_at = now;
        info.progress = 0.0;
        info.message = RUNNING_MESSAGE.to_owned();
    }
    Ok(())
}

/// Sets tasks aside that this build cannot run, each with the reason as its message.
pub(super) async fn hold(
    connection: &mut SqliteConnection,
    tasks: &[(i64, String)],
) -> sqlx::Result<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE tasks SET held = 1, message = reason.value ->> 1 \
         FROM json_each(?1) AS reason WHERE seq = reason.value ->> 0 AND +status = 'pending'",
    )
    .bind(to_json(&tasks)?)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) fn to_json<T: Serialize + ?Sized>(rows: &T) -> sqlx::Result<String> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

pub(super) fn parse<T: FromStr<Err: Error + Send + Sync + 'static>>(text: &str) -> sqlx::Result<T> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::*;

    #[tokio::test]
    async fn no_statement_reads_more_than_it_needs() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let schema = include_str!("../../migrations/sqlite/0001_tasks.sql");
        sqlx::raw_sql(schema).execute(&mut connection).await.unwrap();
        let mut ready = QueryBuilder::new("");
        push_ready(&mut ready, &[("a", 7), ("b", 8)], 9);
        // The walks are merged in memory, a handful of numbers for each task that is claimed.
        let ready = ready.sql().as_str().replace(") ORDER BY priority DESC, seq LIMIT", ") LIMIT");
        for sql in [PROGRESS, END, CANCEL, SUSPECTS, &ready] {
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
