//! Status changes after submission, except claims.
//!
//! Each statement changes a whole batch, given as a table `new`, and is a compare-and-set: its `WHERE`
//! names the expected status and, for a running attempt, the epoch. Other rows stay unchanged.
//!
//! The plus in `+status` rules out indexes of statuses, where SQLite might read every pending task to
//! find one.

use sqlx::{Row, SqliteConnection};

use super::columns::{self, columns, parse};
use super::statements::OverRows;
use super::transaction::{Transaction, Written};
use crate::store::change::{AttemptEnd, CancelEffect, Cancellation, StoredProgress};
use crate::store::record::CANCELLED_MESSAGE;
use crate::store::results::Cancelled;
use crate::task::{TaskStatus, Timestamp};

pub(super) const PROGRESS: OverRows = OverRows {
    columns: &["seq", "epoch", "progress", "message", "updated_at"],
    sql: "UPDATE tasks \
     SET progress = new.progress, message = new.message, updated_at = new.updated_at \
     FROM new WHERE tasks.seq = new.seq AND +status = 'running' AND tasks.epoch = new.epoch",
};

/// Stores the progress of running attempts.
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

/// Ends those attempts that still own their tasks.
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
            .bind(end.unrunnable)
            .bind(end.cancel_requested_at.map(Timestamp::as_micros))
            .bind(end.status.is_final().then_some(now.as_micros()))
            .bind(now.as_micros());
    })
}

pub(super) const ENDED: OverRows = OverRows {
    columns: &["seq", "epoch", "status"],
    sql: "SELECT tasks.seq, tasks.epoch FROM new JOIN tasks USING (seq) \
          WHERE tasks.epoch = new.epoch AND +tasks.status = new.status",
};

/// Returns the ends, by `seq` and epoch, that were not stored.
pub(super) async fn disowned(
    connection: &mut SqliteConnection,
    ends: &[&AttemptEnd],
) -> sqlx::Result<Vec<(i64, i64)>> {
    let select = ENDED.with(ends, |row, end| {
        row.bind(end.seq).bind(end.epoch).text(end.status.name());
    });
    let mut disowned: Vec<_> = ends.iter().map(|end| (end.seq, end.epoch)).collect();
    for row in &select.fetch_all(connection).await? {
        let stored = (row.try_get(0)?, row.try_get(1)?);
        disowned.retain(|end| *end != stored);
    }
    Ok(disowned)
}

pub(super) const PROMOTE: OverRows = OverRows {
    columns: &["seq"],
    sql: "UPDATE tasks SET due_at = NULL \
                   WHERE seq IN (SELECT seq FROM new) AND +status = 'pending'",
};

/// Makes tasks ready whose time has come.
pub(super) fn promote(transaction: &mut Transaction<'_>, seqs: &[i64]) {
    transaction.write(&PROMOTE, seqs, |row, seq| {
        row.bind(*seq);
    });
}

pub(super) const CANCEL: OverRows = OverRows {
    columns: &["wanted", "at", "accepted_by_attempt", "pending_message"],
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
       AND (+status = 'pending' OR (+status = 'running' AND new.accepted_by_attempt)) \
     RETURNING ",
        columns!()
    ),
};

pub(super) const STATUSES: OverRows = OverRows {
    columns: &["id"],
    sql: "SELECT id, status FROM tasks WHERE id IN (SELECT id FROM new)",
};

/// Cancels pending tasks, and stores the request on running ones whose attempts accepted it.
pub(super) async fn cancel(
    transaction: &mut Transaction<'_>,
    cancels: &[&Cancellation],
) -> sqlx::Result<Cancelled> {
    let mut cancelled = Cancelled::default();
    let Cancelled { effects, records } = &mut cancelled;
    let changed = transaction.read(&CANCEL, cancels, |row, asked| {
        row.bind(asked.id.to_string())
            .bind(asked.at.as_micros())
            .bind(asked.accepted_by_attempt)
            .text(CANCELLED_MESSAGE);
    });
    for row in &changed.await? {
        let id = parse(row.try_get("id")?)?;
        let effect = match parse(row.try_get("status")?)? {
            TaskStatus::Cancelled => {
                records.extend(columns::read(row).ok().map(|record| (id, Box::new(record))));
                CancelEffect::Cancelled { seq: columns::seq(row)? }
            }
            _ => CancelEffect::Requested,
        };
        effects.insert(id, effect);
    }
    let others: Vec<_> = cancels.iter().filter(|it| !effects.contains_key(&it.id)).collect();
    let statuses = transaction.read(&STATUSES, &others, |row, asked| {
        row.bind(asked.id.to_string());
    });
    for row in &statuses.await? {
        let effect = match parse(row.try_get(1)?)? {
            TaskStatus::Pending | TaskStatus::Running => CancelEffect::NotAccepted,
            status => CancelEffect::AlreadyFinal(status),
        };
        effects.insert(parse(row.try_get(0)?)?, effect);
    }
    Ok(cancelled)
}
