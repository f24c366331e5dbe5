//! Submissions that name themselves: the same key is stored once, with its task.

use std::collections::HashMap;

use sqlx::Row;

use super::rows::OverRows;
use super::transaction::Transaction;
use super::transitions::parse;
use super::{NewTask, Replay, Store, StoreError};
use crate::task::Timestamp;

/// How long a key is remembered, in microseconds: a day.
pub(crate) const KEY_LIFETIME: i64 = 24 * 60 * 60 * 1_000_000;

impl Store {
    /// What a key stands for, if it is remembered.
    pub(crate) async fn replay(&self, key: &str) -> Result<Option<Replay>, StoreError> {
        let row = sqlx::query(
            "SELECT task_id, body_hash FROM idempotency_keys WHERE key = ?1 AND created_at > ?2",
        )
        .bind(key)
        .bind(oldest_remembered())
        .fetch_optional(self.readers.points())
        .await?;
        let replay = row.map(|row| -> sqlx::Result<Replay> {
            Ok(Replay { task_id: parse(row.try_get(0)?)?, body_hash: row.try_get(1)? })
        });
        Ok(replay.transpose()?)
    }
}

pub(super) const KNOWN: OverRows = OverRows {
    columns: &["key", "oldest"],
    sql: "SELECT idempotency_keys.key, task_id, body_hash \
                 FROM idempotency_keys JOIN new USING (key) WHERE created_at > oldest",
};

/// Which of these submissions were stored before, by key.
pub(super) async fn known(
    transaction: &mut Transaction<'_>,
    tasks: &[&NewTask],
) -> sqlx::Result<HashMap<String, Replay>> {
    let keys: Vec<_> = keys(tasks).map(|(key, _, _)| key).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let known = KNOWN.with(&keys, |row, key| {
        row.text(*key).bind(oldest_remembered());
    });
    let rows = known.fetch_all(transaction.connection().await?).await?;
    let known = rows.iter().map(|row| {
        let replay = Replay { task_id: parse(row.try_get(1)?)?, body_hash: row.try_get(2)? };
        Ok((row.try_get(0)?, replay))
    });
    known.collect()
}

// A key that is too old to count may still be there.
pub(super) const REMEMBER: OverRows = OverRows {
    columns: &["key", "body_hash", "task_id", "created_at"],
    sql: "INSERT OR REPLACE INTO idempotency_keys (key, body_hash, task_id, created_at) \
                  SELECT * FROM new WHERE key IS NOT NULL",
};

/// Remembers the keys of tasks that were stored.
pub(super) fn remember(transaction: &mut Transaction<'_>, tasks: &[&NewTask]) {
    let rows: Vec<_> = keys(tasks).collect();
    let now = Timestamp::now().as_micros();
    transaction.write(&REMEMBER, &rows, |row, (key, body_hash, task_id)| {
        row.text(*key).text(*body_hash).bind(task_id.to_string()).bind(now);
    });
}

fn keys<'t>(
    tasks: &'t [&NewTask],
) -> impl Iterator<Item = (&'t str, &'t str, crate::task::TaskId)> {
    tasks.iter().filter_map(|task| {
        let idempotency = task.idempotency.as_ref()?;
        Some((idempotency.key.as_str(), idempotency.body_hash.as_str(), task.id))
    })
}

fn oldest_remembered() -> i64 {
    Timestamp::now().as_micros() - KEY_LIFETIME
}
