//! Claims of pending tasks, and the order in which they run.

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::columns::{self, columns};
use super::statements::OverRows;
use super::transaction::Transaction;
use crate::store::record::{RUNNING_MESSAGE, TaskRecord};
use crate::store::slots::FreeSlots;
use crate::task::Timestamp;

/// The first ready suspect (a task that may be crashing the server) of the types in `new`.
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

/// Rows that cannot be read, by `seq`, with the reasons.
pub(super) type Unreadable = Vec<(i64, String)>;

/// Returns the ready tasks for the free slots, in the order in which they run, and the rows among them
/// that cannot be read.
pub(super) async fn ready(
    connection: &mut SqliteConnection,
    free: &FreeSlots,
) -> sqlx::Result<(Vec<TaskRecord>, Unreadable)> {
    let mut by_type: Vec<_> = free.by_type().collect();
    let mut rows = Vec::new();
    if free.suspect {
        let open = by_type.iter().filter(|(_, free)| *free > 0).map(|(name, _)| *name);
        let types: Vec<_> = open.collect();
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
    push_ready(&mut query, &by_type, free.limits.total - rows.len());
    query.push(") ORDER BY priority DESC, seq");
    rows.extend(query.build().fetch_all(connection).await?);

    let mut unreadable = Unreadable::new();
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        match columns::read(row) {
            Ok(record) => records.push(record),
            Err(error) => {
                unreadable.push((columns::seq(row)?, format!("this row is damaged: {error}")));
            }
        }
    }
    Ok((records, unreadable))
}

/// Adds a query for the `seq` of the ready tasks that run next. Each type is walked separately, so that
/// one at its limit does not hold up the others. Reads only index entries.
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

/// Claims tasks, and updates their records to match.
pub(super) fn claim(transaction: &mut Transaction<'_>, tasks: &mut [TaskRecord], now: Timestamp) {
    transaction.write(&CLAIM, tasks, |row, record| {
        row.bind(record.seq).bind(now.as_micros()).text(RUNNING_MESSAGE);
    });
    tasks.iter_mut().for_each(|record| record.claim(now));
}

pub(super) const SET_UNRUNNABLE: OverRows = OverRows {
    columns: &["seq", "reason"],
    sql: "UPDATE tasks SET held = 1, message = new.reason \
                FROM new WHERE tasks.seq = new.seq AND +status = 'pending'",
};

/// Marks tasks as unrunnable until the next start, with the reason as the message.
pub(super) fn set_unrunnable(transaction: &mut Transaction<'_>, tasks: &Unreadable) {
    transaction.write(&SET_UNRUNNABLE, tasks, |row, (seq, reason)| {
        row.bind(*seq).text(reason.as_str());
    });
}
