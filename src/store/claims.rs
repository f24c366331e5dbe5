//! Which tasks run next.

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::TaskRecord;
use super::places::Room;
use super::ready::ReadyTask;
use super::record::columns;
use super::rows::OverRows;
use super::transaction::Transaction;
use crate::task::{TaskStatus, Timestamp};

pub(super) const RUNNING_MESSAGE: &str = "Task is running";

/// The first ready task that may be what killed the server before, of the types in `new`.
pub(super) const SUSPECT: OverRows = OverRows {
    columns: &["task_type"],
    sql: concat!(
        "SELECT ",
        columns!(),
        " FROM tasks INDEXED BY tasks_suspect \
      WHERE status = 'pending' AND due_at IS NULL AND held = 0 AND interruptions >= 2 \
        AND task_type IN (SELECT task_type FROM new) \
      ORDER BY priority DESC, seq LIMIT 1"
    ),
};

/// Rows that cannot be read, by `seq`, and why.
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
        let free = by_type.iter().filter(|(_, free)| *free > 0).map(|(name, _)| *name);
        let types: Vec<_> = free.collect();
        let first = SUSPECT.with(&types, |row, name| {
            row.text(*name);
        });
        if let Some(row) = first.fetch_optional(&mut *connection).await? {
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

pub(super) const CLAIM: OverRows = OverRows {
    columns: &["seq", "started_at", "message"],
    sql: "UPDATE tasks SET status = 'running', epoch = epoch + 1, attempt = attempt + 1, \
         started_at = new.started_at, updated_at = new.started_at, progress = 0, message = new.message \
     FROM new WHERE tasks.seq = new.seq AND +status = 'pending'",
};

/// Claims tasks that wait.
pub(super) fn claim(transaction: &mut Transaction<'_>, tasks: &mut [ReadyTask], now: Timestamp) {
    transaction.write(&CLAIM, tasks, |row, (record, _)| {
        row.bind(record.seq).bind(now.as_micros()).text(RUNNING_MESSAGE);
    });
    for (record, _) in tasks {
        record.epoch += 1;
        let info = &mut record.info;
        info.attempt += 1;
        info.status = TaskStatus::Running;
        info.started_at = Some(now);
        info.updated_at = now;
        info.progress = 0.0;
        info.message = RUNNING_MESSAGE.to_owned();
    }
}

pub(super) const HOLD: OverRows = OverRows {
    columns: &["seq", "reason"],
    sql: "UPDATE tasks SET held = 1, message = new.reason \
                FROM new WHERE tasks.seq = new.seq AND +status = 'pending'",
};

/// Sets tasks aside that this build cannot read, each with the reason as its message.
pub(super) fn hold(transaction: &mut Transaction<'_>, tasks: &[(i64, String)]) {
    transaction.write(&HOLD, tasks, |row, (seq, reason)| {
        row.bind(*seq).text(reason.as_str());
    });
}
