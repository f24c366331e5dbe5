//! The SQL of state changes after the submission, but for claims.
//!
//! Each statement changes a whole batch, handed over as a table `new`, and is a compare-and-set:
//! its `WHERE` names the status (and for a running attempt the epoch) that it starts from. A row
//! that is elsewhere by now is left alone, and its absence from the answer says so.
//!
//! The plus in `+status` keeps SQLite from walking along an index of statuses, where it may read every
//! pending task to find one.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::str::FromStr;

use sqlx::{Row, SqliteConnection};

use super::record::columns;
use super::rows::OverRows;
use super::transaction::{Transaction, Written};
use super::{AttemptEnd, CancelEffect, Cancellation, StoredProgress, TaskRecord};
use crate::task::{TaskId, TaskStatus, Timestamp};

pub(crate) const CANCELLED_MESSAGE: &str = "Task cancelled by user";

pub(super) const PROGRESS: OverRows = OverRows {
    columns: &["seq", "epoch", "progress", "message", "updated_at"],
    sql: "UPDATE tasks \
     SET progress = new.progress, message = new.message, updated_at = new.updated_at \
     FROM new WHERE tasks.seq = new.seq AND +status = 'running' AND tasks.epoch = new.epoch",
};

/// Writes down how far running attempts are.
pub(super) fn progress(transaction: &mut Transaction<'_>, progress: &[&StoredProgress]) {
    transaction.write(&PROGRESS, progress, |row, new| {
        row.bind(new.seq)
            .bind(new.epoch)
            .bind(new.percent)
            .text(new.message.as_str())
            .bind(new.updated_at.as_micros());
    });
}

pub(super) const END: OverRows = OverRows {
    columns: &[
        "seq",
        "epoch",
        "status",
        "progress",
        "message",
        "result",
        "error",
        "due_at",
        "given_back",
        "held",
        "cancelled_at",
        "completed_at",
        "updated_at",
    ],
    sql: "UPDATE tasks SET \
         status = new.status, \
         progress = new.progress, \
         message = new.message, \
         result = new.result, \
         error = new.error, \
         due_at = new.due_at, \
         attempt = attempt - new.given_back, \
         held = new.held, \
         cancel_requested_at = new.cancelled_at, \
         completed_at = new.completed_at, \
         updated_at = new.updated_at \
     FROM new \
     WHERE tasks.seq = new.seq AND +tasks.status = 'running' AND tasks.epoch = new.epoch \
       AND (cancel_requested_at IS NULL OR new.status = 'cancelled')",
};

/// Ends attempts that own their tasks.
pub(super) fn end(
    transaction: &mut Transaction<'_>,
    ends: &[&AttemptEnd],
    now: Timestamp,
) -> Option<Written> {
    transaction.write(&END, ends, |row, end| {
        row.bind(end.seq)
            .bind(end.epoch)
            .text(end.status.name())
            .bind(end.progress)
            .text(end.message.as_str())
            .text(end.result.as_ref().map(|result| result.get()))
            .text(end.error.as_deref())
            .bind(end.pause.map(|pause| now.as_micros() + pause.as_micros() as i64))
            .bind(end.attempt_given_back)
            .bind(end.set_aside)
            .bind(end.cancel_requested_at.map(Timestamp::as_micros))
            .bind(end.status.is_final().then_some(now.as_micros()))
            .bind(now.as_micros());
    })
}

pub(super) const ENDED: OverRows = OverRows {
    columns: &["seq", "epoch", "status"],
    sql: "SELECT tasks.seq FROM new JOIN tasks USING (seq) \
          WHERE tasks.epoch = new.epoch AND +tasks.status = new.status",
};

/// Which of these ends are stored, by `seq`.
pub(super) async fn ended(
    connection: &mut SqliteConnection,
    ends: &[&AttemptEnd],
) -> sqlx::Result<HashSet<i64>> {
    let select = ENDED.with(ends, |row, end| {
        row.bind(end.seq).bind(end.epoch).text(end.status.name());
    });
    let rows = select.fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

pub(super) const PROMOTE: OverRows = OverRows {
    columns: &["seq"],
    sql: "UPDATE tasks SET due_at = NULL \
                   WHERE seq IN (SELECT seq FROM new) AND +status = 'pending'",
};

/// Makes waiting tasks ready.
pub(super) fn promote(transaction: &mut Transaction<'_>, seqs: &[i64]) {
    transaction.write(&PROMOTE, seqs, |row, seq| {
        row.bind(*seq);
    });
}

pub(super) const CANCEL: OverRows = OverRows {
    columns: &["wanted", "at", "accepted_by_runner", "pending_message"],
    sql: concat!(
        "UPDATE tasks SET \
         cancel_requested_at = coalesce(cancel_requested_at, new.at), \
         completed_at = iif(status = 'pending', new.at, NULL), \
         message = iif(status = 'pending', new.pending_message, message), \
         status = iif(status = 'pending', 'cancelled', status), \
         due_at = NULL, \
         held = 0, \
         updated_at = new.at \
     FROM new \
     WHERE tasks.id = new.wanted \
       AND (+status = 'pending' OR (+status = 'running' AND new.accepted_by_runner)) \
     RETURNING ",
        columns!()
    ),
};

pub(super) const STATUSES: OverRows = OverRows {
    columns: &["id"],
    sql: "SELECT id, status FROM tasks WHERE id IN (SELECT id FROM new)",
};

/// What cancellations came to.
#[derive(Default)]
pub(super) struct Cancelled {
    pub(super) effects: HashMap<TaskId, CancelEffect>,
    /// The tasks that were pending, as they are now; without those that nobody can read.
    pub(super) records: HashMap<TaskId, Box<TaskRecord>>,
}

impl Cancelled {
    /// Whether one of them was pending.
    pub(super) fn was_pending(&self) -> bool {
        self.effects.values().any(|effect| matches!(effect, CancelEffect::Cancelled { .. }))
    }
}

/// Cancels pending tasks, and notes the wish on running ones whose runner has accepted it.
pub(super) async fn cancel(
    transaction: &mut Transaction<'_>,
    cancels: &[&Cancellation],
) -> sqlx::Result<Cancelled> {
    let mut cancelled = Cancelled::default();
    if cancels.is_empty() {
        return Ok(cancelled);
    }
    let Cancelled { effects, records } = &mut cancelled;
    let connection = transaction.connection().await?;
    let update = CANCEL.with(cancels, |row, wish| {
        row.bind(wish.id.to_string())
            .bind(wish.at.as_micros())
            .bind(wish.accepted_by_runner)
            .text(CANCELLED_MESSAGE);
    });
    let changed = update.fetch_all(&mut *connection).await?;
    for row in &changed {
        let id = parse(row.try_get("id")?)?;
        let effect = match parse(row.try_get("status")?)? {
            TaskStatus::Cancelled => {
                records.extend(TaskRecord::from_row(row).ok().map(|record| (id, Box::new(record))));
                CancelEffect::Cancelled { seq: row.try_get("seq")? }
            }
            _ => CancelEffect::Requested,
        };
        effects.insert(id, effect);
    }
    if effects.len() < cancels.len() {
        let select = STATUSES.with(cancels, |row, wish| {
            row.bind(wish.id.to_string());
        });
        for row in &select.fetch_all(connection).await? {
            let id = parse(row.try_get(0)?)?;
            let effect = match parse(row.try_get(1)?)? {
                TaskStatus::Pending | TaskStatus::Running => CancelEffect::NotAccepted,
                status => CancelEffect::AlreadyFinal(status),
            };
            effects.entry(id).or_insert(effect);
        }
    }
    Ok(cancelled)
}

pub(super) fn parse<T: FromStr<Err: Error + Send + Sync + 'static>>(text: &str) -> sqlx::Result<T> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
