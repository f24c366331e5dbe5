//! The reading half of the engine, and its point reads. Their cost does not depend on the number of
//! tasks.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use sqlx::Row;
use tokio::sync::{mpsc, oneshot};

use super::columns::{self, columns, parse};
use super::files::DatabaseFiles;
use super::positions::PositionCache;
use super::readers::Readers;
use super::statements::OverRows;
use super::submissions::oldest_remembered;
use super::times::Times;
use super::types::KnownTypes;
use crate::store::change::{Answer, Replay};
use crate::store::counts::Counts;
use crate::store::error::StoreError;
use crate::store::filter::Positions;
use crate::store::record::TaskRecord;
use crate::store::slots::Limits;
use crate::task::{TaskId, Timestamp};

/// State of all reads, shared by all readers. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ReadHalf {
    pub(super) readers: Readers,
    pub(super) lookups: mpsc::UnboundedSender<Lookup>,
    pub(super) counts: Arc<Counts>,
    pub(super) times: Arc<Times>,
    pub(super) positions: Arc<PositionCache>,
    /// Whether `retried_by` is known for all tasks. Set once, by the backfill.
    pub(super) retries_known: Arc<AtomicBool>,
    /// Greater than the `seq` of every stored task. Written by the writer after each commit.
    pub(super) next_seq: Arc<AtomicI64>,
    pub(super) types: Arc<KnownTypes>,
    /// Path of the write-ahead log.
    pub(super) log: Arc<PathBuf>,
    pub(super) files: Arc<DatabaseFiles>,
}

pub(super) const NEWEST_RUNNABLE: &str = "SELECT id FROM tasks WHERE seq = (SELECT max((SELECT max(seq) FROM \
         (SELECT seq, held FROM tasks WHERE task_type = value AND status = 'pending' \
          ORDER BY seq DESC LIMIT 1000) WHERE held = 0)) \
     FROM json_each(?1))";

impl ReadHalf {
    /// Task counts, which the writer keeps up to date.
    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Limits on running tasks.
    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.types.limits()
    }

    /// Returns one task.
    pub(crate) async fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        let (answer, found) = oneshot::channel();
        self.lookups.send((id, answer)).map_err(|_| StoreError::Closed)?;
        let record = found.await.map_err(|_| StoreError::Closed)??;
        Ok(record.map(Arc::unwrap_or_clone))
    }

    /// Returns the newest pending task that this build can run, among the newest 1000 of each type.
    pub(crate) async fn newest_runnable(&self) -> Result<Option<TaskId>, StoreError> {
        let types = serde_json::Value::from(self.types.limits().names()).to_string();
        let newest = sqlx::query(NEWEST_RUNNABLE).bind(types);
        let newest = newest.fetch_optional(self.readers.points()).await?;
        Ok(newest.map(|row| parse(row.try_get(0)?)).transpose()?)
    }

    /// Submission time of the oldest pending task.
    pub(crate) async fn oldest_pending(&self) -> Result<Option<Timestamp>, StoreError> {
        let oldest = "SELECT min((SELECT created_at FROM tasks \
                          WHERE task_type = name AND status = 'pending' ORDER BY seq LIMIT 1)) \
                      FROM task_types";
        let row = sqlx::query(oldest).fetch_one(self.readers.points()).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.map(Timestamp::from_micros))
    }

    /// Queue positions of the ready tasks, up to [`MAX_POSITION`](crate::store::MAX_POSITION).
    pub(crate) async fn positions(&self) -> Result<Arc<Positions>, StoreError> {
        self.positions.read(&self.readers, &self.types.limits().names()).await
    }

    /// Returns the first submission with this idempotency key, if it is remembered.
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

    /// Number of rows of a table.
    #[cfg(test)]
    pub(crate) async fn rows(&self, table: &str) -> usize {
        let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let rows = sqlx::query_scalar::<_, i64>(count).fetch_one(self.readers.points()).await;
        rows.unwrap() as usize
    }

    /// Fails if an accepted change could not be stored or found again.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.files.check()
    }

    pub(super) fn check_retries_known(&self) -> Result<(), StoreError> {
        let known = self.retries_known.load(Ordering::Acquire);
        known.then_some(()).ok_or(StoreError::RetriesUnknown)
    }

    /// Size of the write-ahead log, in bytes.
    pub(crate) fn log_size(&self) -> u64 {
        self.log.metadata().map_or(0, |file| file.len())
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
    }
}

/// Request for a task. Concurrent requests for the same task share a record, not a row: SQLite may
/// convert a value when it is read, so only one thread may read a row.
pub(super) type Lookup = (TaskId, Answer<Option<Arc<TaskRecord>>>);

/// Records by id, or the error from reading them.
type Found = HashMap<TaskId, Result<Arc<TaskRecord>, StoreError>>;

/// Maximum number of lookups in one query.
const MAX_LOOKUPS: usize = 64;

pub(super) const LOOK_UP: OverRows = OverRows {
    columns: &["wanted"],
    sql: concat!("SELECT ", columns!(), " FROM new CROSS JOIN tasks ON tasks.id = new.wanted"),
};

/// Coalesces lookups: each query serves all requests that arrived during the one before, because the
/// round trip to a connection's thread takes longer than the lookup. Ends when all senders are gone.
pub(super) async fn look_up(readers: Readers, mut lookups: mpsc::UnboundedReceiver<Lookup>) {
    let mut asked = Vec::with_capacity(MAX_LOOKUPS);
    while lookups.recv_many(&mut asked, MAX_LOOKUPS).await > 0 {
        let found = find(&readers, &asked).await;
        for (id, answer) in asked.drain(..) {
            // The caller may have stopped waiting.
            let _ = answer.send(match &found {
                Ok(found) => found.get(&id).cloned().transpose(),
                Err(error) => Err(error.clone()),
            });
        }
    }
}

async fn find(readers: &Readers, asked: &[Lookup]) -> Result<Found, StoreError> {
    let query = LOOK_UP.with(asked, |row, (id, _)| {
        row.bind(id.to_string());
    });
    let mut found = Found::with_capacity(asked.len());
    for row in &query.fetch_all(readers.points()).await? {
        let id = parse(row.try_get("id")?)?;
        // One row per request, so a task may have several.
        found.entry(id).or_insert_with(|| Ok(Arc::new(columns::read(row)?)));
    }
    Ok(found)
}
