//! Storage of new tasks, their tags and idempotency keys.

use std::cmp::Reverse;
use std::collections::HashMap;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::columns::{self, parse};
use super::outputs::Owners;
use super::retries;
use super::statements::OverRows;
use super::transaction::Transaction;
use crate::store::change::{Idempotency, NewTask, Refused, Replay};
use crate::store::record::{RUNNING_MESSAGE, TaskRecord};
use crate::store::slots::FreeSlots;
use crate::task::{TaskId, TaskInfo, TaskStatus, Timestamp};

/// Lifetime of an idempotency key, in microseconds: a day.
const KEY_LIFETIME: i64 = 24 * 60 * 60 * 1_000_000;

/// Stores new tasks, numbered from `next_seq`. Results are in the order of `tasks`. Given `free` slots,
/// which means that no other task waits, tasks with a free slot are stored as running. `folders` is whether any
/// unfinished task may have a folder as its output.
pub(super) async fn submit(
    transaction: &mut Transaction<'_>,
    tasks: &[&NewTask],
    next_seq: i64,
    free: Option<&mut FreeSlots>,
    folders: bool,
    now: Timestamp,
) -> sqlx::Result<Vec<Result<Box<TaskRecord>, Refused>>> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let refusals = refusals(transaction, tasks, folders).await?;
    let accepted = tasks.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none());
    let stored: Vec<&NewTask> = accepted.map(|(&task, _)| task).collect();
    let mut rows: Vec<_> =
        stored.iter().zip(next_seq..).map(|(task, seq)| Box::new(record(task, seq))).collect();
    if let Some(free) = free {
        let mut ready: Vec<_> = rows.iter_mut().filter(|row| row.due_at.is_none()).collect();
        ready.sort_by_key(|row| Reverse(row.info.priority));
        for row in ready {
            if free.take(&row.info.task_type) {
                row.claim(now);
            }
        }
    }
    let keyed: Vec<_> = rows.iter().zip(&stored).collect();
    transaction.write(&INSERT, &keyed, |values, (record, task)| {
        columns::bind(values, record, task.output_key.as_deref());
    });
    let tagged: Vec<_> = rows.iter().filter(|row| row.info.tags.get() != "{}").collect();
    transaction.write(&INSERT_TAGS, &tagged, |values, row| {
        values.bind(row.seq).text(row.info.tags.get());
    });
    remember(transaction, &stored, now);
    retries::note(transaction, &stored);
    let mut rows = rows.into_iter();
    let results = refusals.into_iter().map(|refusal| match refusal {
        Some(refused) => Err(refused),
        None => Ok(rows.next().expect("each accepted task has its row")),
    });
    Ok(results.collect())
}

/// Returns the reason for refusing each task, or `None` to store it.
async fn refusals(
    transaction: &mut Transaction<'_>,
    tasks: &[&NewTask],
    folders: bool,
) -> sqlx::Result<Vec<Option<Refused>>> {
    let known = known_keys(transaction, tasks).await?;
    let mut retried = retries::retried(transaction, tasks).await?;
    let mut owners = Owners::read(transaction, tasks, folders).await?;
    let refuse = |task: &&NewTask| {
        if let Some(replay) = task.idempotency.as_ref().and_then(|it| known.get(&it.key)) {
            return Some(Refused::Replayed(replay.clone()));
        }
        if let Some(retry) = task.retry
            && retry.only_first
            && retried.contains(&retry.of)
        {
            return Some(Refused::RetriedBefore);
        }
        if let Some(output) = &task.output_key
            && let Err(refused) = owners.claim(output, task.id)
        {
            return Some(refused);
        }
        retried.extend(task.retry.map(|retry| retry.of));
        None
    };
    Ok(tasks.iter().map(refuse).collect())
}

/// Pending record of a new task.
fn record(task: &NewTask, seq: i64) -> TaskRecord {
    let info = TaskInfo {
        task_id: task.id,
        task_type: task.task_type.to_owned(),
        status: TaskStatus::Pending,
        progress: 0.0,
        message: String::new(),
        created_at: task.created_at,
        started_at: None,
        completed_at: None,
        result: None,
        error: None,
        input_file_path: task.input_file_path.clone(),
        output_file_path: task.output_file_path.clone(),
        parameters: task.parameters.clone(),
        updated_at: task.created_at,
        attempt: 0,
        max_attempts: task.max_attempts,
        timeout_seconds: task.timeout_seconds,
        cancel_requested_at: None,
        priority: task.priority,
        tags: task.tags.clone(),
        run_at: task.run_at,
        retry_of: task.retry.map(|retry| retry.of),
        retried_by: None,
        queue_position: None,
        waiting_because: None,
        eta_seconds: None,
    };
    let (epoch, interruptions, due_at) = (0, 0, task.run_at);
    TaskRecord { seq, epoch, interruptions, due_at, unrunnable: false, info }
}

impl TaskRecord {
    /// Applies a claim to a pending record.
    pub(super) fn claim(&mut self, now: Timestamp) {
        self.epoch += 1;
        let info = &mut self.info;
        info.attempt += 1;
        info.status = TaskStatus::Running;
        info.started_at = Some(now);
        info.updated_at = now;
        info.progress = 0.0;
        RUNNING_MESSAGE.clone_into(&mut info.message);
    }
}

pub(super) const INSERT: OverRows = OverRows {
    columns: columns::WRITTEN,
    sql: concat!(
        "INSERT INTO tasks (",
        columns::columns!(),
        ", output_key) SELECT * FROM new WHERE seq IS NOT NULL"
    ),
};

// json_each(NULL) yields no rows.
pub(super) const INSERT_TAGS: OverRows = OverRows {
    columns: &["seq", "tags"],
    sql: "INSERT INTO task_tags (key, value, task_seq) \
     SELECT tag.key, tag.value, seq FROM new, json_each(tags) AS tag",
};

pub(super) const KNOWN_KEYS: OverRows = OverRows {
    columns: &["key", "oldest"],
    sql: "SELECT idempotency_keys.key, task_id, body_hash \
                 FROM idempotency_keys JOIN new USING (key) WHERE created_at > oldest",
};

/// Returns the idempotency keys of these tasks that are already stored.
async fn known_keys(
    transaction: &mut Transaction<'_>,
    tasks: &[&NewTask],
) -> sqlx::Result<HashMap<String, Replay>> {
    let keys: Vec<_> = keys(tasks).map(|(idempotency, _)| &*idempotency.key).collect();
    let oldest = oldest_remembered();
    let rows = transaction.read(&KNOWN_KEYS, &keys, |row, key| {
        row.text(*key).bind(oldest);
    });
    let replay = |row: &SqliteRow| {
        let replay = Replay { task_id: parse(row.try_get(1)?)?, body_hash: row.try_get(2)? };
        Ok((row.try_get(0)?, replay))
    };
    rows.await?.iter().map(replay).collect()
}

// An expired key may still be in the table.
pub(super) const REMEMBER: OverRows = OverRows {
    columns: &["key", "body_hash", "task_id", "created_at"],
    sql: "INSERT OR REPLACE INTO idempotency_keys (key, body_hash, task_id, created_at) \
                  SELECT * FROM new WHERE key IS NOT NULL",
};

/// Stores the idempotency keys of new tasks.
fn remember(transaction: &mut Transaction<'_>, tasks: &[&NewTask], now: Timestamp) {
    let rows: Vec<_> = keys(tasks).collect();
    transaction.write(&REMEMBER, &rows, |row, (idempotency, id)| {
        let Idempotency { key, body_hash } = idempotency;
        row.text(&**key).text(&**body_hash).bind(id.to_string()).bind(now.as_micros());
    });
}

fn keys<'t>(tasks: &'t [&NewTask]) -> impl Iterator<Item = (&'t Idempotency, TaskId)> {
    tasks.iter().filter_map(|task| Some((task.idempotency.as_ref()?, task.id)))
}

/// Time up to which idempotency keys have expired.
pub(super) fn oldest_remembered() -> i64 {
    Timestamp::now().as_micros() - KEY_LIFETIME
}
