//! The ends of logs, which outlive their files.

use sqlx::Row;

use super::columns::parse;
use super::reads::ReadHalf;
use super::statements::OverRows;
use super::transaction::Transaction;
use crate::store::error::StoreError;
use crate::store::record::{LogOwner, LogTail};
use crate::task::TaskId;

// Skips a task that was erased meanwhile.
pub(super) const STORE: OverRows = OverRows {
    columns: &["task_seq", "attempt", "bytes", "tail"],
    sql: "INSERT OR REPLACE INTO task_logs (task_seq, attempt, bytes, tail) \
          SELECT new.task_seq, new.attempt, new.bytes, new.tail \
          FROM new CROSS JOIN tasks ON tasks.seq = new.task_seq",
};

/// Stores ends of logs.
pub(super) fn store(transaction: &mut Transaction<'_>, tails: &[&LogTail]) {
    transaction.write(&STORE, tails, |row, log| {
        row.bind(log.seq).bind(log.attempt).bind(log.bytes as i64).text(log.tail.as_str());
    });
}

pub(super) const OWNERS: OverRows = OverRows {
    columns: &["wanted", "attempt"],
    sql: "SELECT tasks.id, new.attempt, seq, status, tasks.attempt, \
              EXISTS (SELECT 1 FROM task_logs \
                      WHERE task_logs.task_seq = seq AND task_logs.attempt = new.attempt) \
          FROM new CROSS JOIN tasks ON tasks.id = new.wanted",
};

impl ReadHalf {
    /// Returns the stored end of the log of an attempt.
    pub(crate) async fn log(
        &self,
        id: TaskId,
        attempt: u32,
    ) -> Result<Option<LogTail>, StoreError> {
        let row = sqlx::query(
            "SELECT seq, bytes, tail FROM tasks JOIN task_logs ON task_seq = seq \
             WHERE id = ?1 AND task_logs.attempt = ?2",
        )
        .bind(id.to_string())
        .bind(attempt)
        .fetch_optional(self.readers.points())
        .await?;
        let tail = row.map(|row| -> sqlx::Result<LogTail> {
            let bytes = row.try_get::<i64, _>(1)? as u64;
            Ok(LogTail { seq: row.try_get(0)?, attempt, bytes, tail: row.try_get(2)? })
        });
        Ok(tail.transpose()?)
    }

    /// Returns what is known about attempts with a log. Those of unknown tasks are missing.
    pub(crate) async fn log_owners(
        &self,
        attempts: &[(TaskId, u32)],
    ) -> Result<Vec<((TaskId, u32), LogOwner)>, StoreError> {
        if attempts.is_empty() {
            return Ok(Vec::new());
        }
        let query = OWNERS.with(attempts, |row, (id, attempt)| {
            row.bind(id.to_string()).bind(*attempt);
        });
        let rows = query.fetch_all(self.readers.points()).await?;
        let owners = rows.iter().map(|row| -> sqlx::Result<_> {
            let owner = LogOwner {
                seq: row.try_get(2)?,
                status: parse(row.try_get(3)?)?,
                attempts: row.try_get(4)?,
                is_stored: row.try_get(5)?,
            };
            Ok(((parse(row.try_get(0)?)?, row.try_get(1)?), owner))
        });
        Ok(owners.collect::<sqlx::Result<_>>()?)
    }
}
