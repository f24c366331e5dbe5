//! Stores new tasks, with what makes them findable and unrepeatable.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use sqlx::Row;

use super::claims::RUNNING_MESSAGE;
use super::places::Room;
use super::rows::OverRows;
use super::transaction::Transaction;
use super::transitions::parse;
use super::{NewTask, Submitted, idempotency, retries};
use crate::task::{TaskId, TaskStatus, Timestamp};

/// Stores new tasks. The outcomes are in the order of `tasks`; stored ones are numbered from
/// `next_seq` on. Those that there is `room` for run at once: nothing is waiting before them.
pub(super) async fn submit(
    transaction: &mut Transaction<'_>,
    tasks: &[&NewTask],
    next_seq: i64,
    room: Option<&mut Room>,
    now: Timestamp,
) -> sqlx::Result<Vec<Submitted>> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let known = idempotency::known(transaction, tasks).await?;
    let mut retried = retries::retried(transaction, tasks).await?;
    let mut owners = output_owners(transaction, tasks).await?;
    let mut refuse = |task: &&NewTask| {
        if let Some(replay) = task.idempotency.as_ref().and_then(|it| known.get(&it.key)) {
            return Some(Submitted::Replayed(replay.clone()));
        }
        if let Some(retry) = task.retry
            && retry.only_first
            && retried.contains(&retry.of)
        {
            return Some(Submitted::RetriedBefore);
        }
        if let Some(output) = &task.output_key {
            match owners.entry(output.clone()) {
                Entry::Occupied(owner) => return Some(Submitted::OutputInUse(*owner.get())),
                Entry::Vacant(free) => free.insert(task.id),
            };
        }
        retried.extend(task.retry.map(|retry| retry.of));
        None
    };
    let refusals: Vec<_> = tasks.iter().map(&mut refuse).collect();
    let accepted = tasks.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none());
    let mut rows: Vec<_> = accepted
        .zip(next_seq..)
        .map(|((&task, _), seq)| NewRow { task, seq, running: false })
        .collect();
    if let Some(room) = room {
        let mut ready: Vec<_> = rows.iter_mut().filter(|row| row.task.run_at.is_none()).collect();
        ready.sort_by_key(|row| Reverse(row.task.priority));
        for row in ready {
            row.running = room.take(row.task.task_type);
        }
    }
    insert(transaction, &rows, now);
    insert_tags(transaction, &rows);
    let stored: Vec<_> = rows.iter().map(|row| row.task).collect();
    idempotency::remember(transaction, &stored);
    retries::note(transaction, stored.iter().copied());

    let mut stored =
        rows.iter().map(|&NewRow { seq, running, .. }| Submitted::Stored { seq, running });
    Ok(refusals.into_iter().filter_map(|refusal| refusal.or_else(|| stored.next())).collect())
}

/// A new task on its way into the table.
struct NewRow<'t> {
    task: &'t NewTask,
    seq: i64,
    running: bool,
}

pub(super) const INSERT: OverRows = OverRows {
    columns: &[
        "seq",
        "id",
        "task_type",
        "status",
        "priority",
        "parameters",
        "tags",
        "input_file_path",
        "output_file_path",
        "output_key",
        "timeout_seconds",
        "max_attempts",
        "created_at",
        "started_at",
        "message",
        "run_at",
        "retry_of",
    ],
    sql: "INSERT INTO tasks (seq, id, task_type, status, priority, parameters, tags, \
         input_file_path, output_file_path, output_key, timeout_seconds, max_attempts, created_at, \
         started_at, message, run_at, retry_of, due_at, updated_at, epoch, attempt) \
     SELECT *, run_at, coalesce(started_at, created_at), started_at IS NOT NULL, \
            started_at IS NOT NULL \
     FROM new WHERE seq IS NOT NULL",
};

fn insert(transaction: &mut Transaction<'_>, rows: &[NewRow<'_>], now: Timestamp) {
    transaction.write(&INSERT, rows, |row, &NewRow { task, seq, running }| {
        let status = if running { TaskStatus::Running } else { TaskStatus::Pending };
        row.bind(seq)
            .bind(task.id.to_string())
            .text(task.task_type)
            .text(status.name())
            .bind(task.priority)
            .text(task.parameters.get())
            .text(task.tags.get())
            .text(task.input_file_path.as_deref())
            .text(task.output_file_path.as_deref())
            .text(task.output_key.as_deref())
            .bind(task.timeout_seconds)
            .bind(task.max_attempts)
            .bind(task.created_at.as_micros())
            .bind(running.then_some(now.as_micros()))
            .text(if running { RUNNING_MESSAGE } else { "" })
            .bind(task.run_at.map(Timestamp::as_micros))
            .bind(task.retry.map(|retry| retry.of.to_string()));
    });
}

// Of NULL there are no tags.
pub(super) const INSERT_TAGS: OverRows = OverRows {
    columns: &["seq", "tags"],
    sql: "INSERT INTO task_tags (key, value, task_seq) \
     SELECT tag.key, tag.value, seq FROM new, json_each(tags) AS tag",
};

/// Makes stored tasks findable by their tags.
fn insert_tags(transaction: &mut Transaction<'_>, rows: &[NewRow<'_>]) {
    let tagged: Vec<_> = rows.iter().filter(|row| row.task.tags.get() != "{}").collect();
    transaction.write(&INSERT_TAGS, &tagged, |row, new| {
        row.bind(new.seq).text(new.task.tags.get());
    });
}

pub(super) const OUTPUT_OWNERS: OverRows = OverRows {
    columns: &["output_key"],
    sql: "SELECT tasks.output_key, id FROM tasks INDEXED BY tasks_output \
     WHERE tasks.output_key IN (SELECT output_key FROM new) \
       AND tasks.output_key IS NOT NULL AND status IN ('pending', 'running')",
};

/// The unfinished tasks that write the outputs of these, by output.
async fn output_owners(
    transaction: &mut Transaction<'_>,
    tasks: &[&NewTask],
) -> sqlx::Result<HashMap<String, TaskId>> {
    let keys: Vec<_> = tasks.iter().filter_map(|task| task.output_key.as_ref()).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let owners = OUTPUT_OWNERS.with(&keys, |row, key| {
        row.text(key.as_str());
    });
    let rows = owners.fetch_all(transaction.connection().await?).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, parse(row.try_get(1)?)?))).collect()
}
