//! The end of a log. Its last lines are written before the end of the attempt is stored, so that whoever sees
//! the end sees the whole log; what outlives the file is stored afterwards.

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::state::Attempt;
use crate::store::{LogTail, Store, StoreError};
use crate::task::{LogText, TaskLog, with_causes};

/// Limit of what is stored of a log, in bytes.
const MAX_STORED: usize = 16 * 1024;

/// Permits to put the end of a log into the writer's queue. They bound the size of a transaction.
static TURNS: Semaphore = Semaphore::const_new(16);

/// Closes the log of an attempt. Returns its end, unless it has no lines.
pub(super) async fn close(attempt: &Attempt) -> Option<LogTail> {
    if !attempt.log.close() {
        return None;
    }
    finish(attempt.seq, attempt.claimed.attempt, attempt.log.clone()).await
}

/// Finishes a closed log, or one that a crash left behind. Returns its end.
pub(crate) async fn finish(seq: i64, attempt: u32, log: TaskLog) -> Option<LogTail> {
    let finished = spawn_blocking(move || log.finish(MAX_STORED)).await;
    match finished.unwrap_or_else(|panic| Err(panic.into())) {
        Ok(LogText { text, total }) => {
            let tail = String::from_utf8_lossy(&text).into_owned();
            Some(LogTail { seq, attempt, bytes: total, tail })
        }
        Err(error) => {
            tracing::warn!(error = with_causes(&error), "cannot read the log of a task");
            None
        }
    }
}

/// Stores the end of a log after that of its attempt. If that fails, the upkeep of the logs stores it.
pub(super) async fn store_if_possible(database: &Store, tail: LogTail) {
    match store(database, tail).await {
        Ok(()) | Err(StoreError::Closed) => {}
        Err(error) => {
            tracing::warn!(error = with_causes(&error), "cannot store the end of a log yet");
        }
    }
}

/// Stores the end of a log.
pub(crate) async fn store(store: &Store, tail: LogTail) -> Result<(), StoreError> {
    let _turn = TURNS.acquire().await;
    store.log(tail).await
}
