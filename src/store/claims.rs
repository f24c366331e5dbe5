//! Which tasks run next.

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::TaskRecord;
use super::record::columns;
use super::transitions::to_json;
use crate::task::{TaskStatus, Timestamp};

const RUNNING_MESSAGE: &str = "Task is running";

/// The first ready task that may be what killed the server before, of the types in `?1`.
pub(super) const SUSPECT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM tasks INDEXED BY tasks_suspect \
      WHERE status = 'pending' AND due_at IS NULL AND held = 0 AND interruptions >= 2 \
        AND task_type IN (SELECT value FROM json_each(?1)) \
      ORDER BY priority DESC, seq LIMIT 1"
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

/// Rows that cannot be run, by `seq`, and why.
pub(super) type Held = Vec<(i64, String)>;

/// Ready tasks in the order in which they are to run, as many as there is room for; beside them
/// the rows in their places that nobody can read.
pub(super) async fn ready(
    connection: &mut SqliteConnection,
    room: &Room,
) -> sqlx::Result<(Vec<TaskRecord>, Held)> {
    let mut by_type = room.by_type.clone();
    let mut rows = Vec::new();
    if room.suspect {
        let free = by_type.iter().filter(|(_, free)| *free > 0).map(|(name, _)| name);
        let types = to_json(&free.collect::<Vec<_>>())?;
        if let Some(row) = sqlx::query(SUSPECT).bind(types).fetch_optional(&mut *connection).await?
        {
            let name: &str = row.try_get("task_type")?;
            by_type.iter_mut().filter(|(of, _)| *of == name).for_each(|(_, free)| *free -= 1);
            rows.push(row);
        }
    }
    let mut query = QueryBuilder::new(concat!("SELECT ", columns!(), " FROM tasks WHERE seq IN ("));
    push_ready(&mut query, &by_type, room.total - rows.len());
    query.push(") ORDER BY priority DESC, seq");
    rows.extend(query.build().fetch_all(connection).await?);

    let mut held = Held::new();
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        match TaskRecord::from_row(row) {
            Ok(record) => records.push(record),
            Err(error) => held.push((row.try_get("seq")?, format!("this row is damaged: {error}"))),
        }
    }
    Ok((records, held))
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
