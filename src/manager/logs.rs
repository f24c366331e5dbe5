//! Logs of tasks, as clients read them: from the file of an attempt, or from what the database keeps when
//! the file is gone.

mod follow;
mod tidy;

use std::io;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::TaskManager;
use super::events::WatchError;
use crate::store::{LogTail, StoreError};
use crate::task::{LogText, TaskId, TaskStatus, tail_lines};
pub(crate) use follow::{Followed, LogFollower};
pub use tidy::LogLimits;
pub(super) use tidy::tidy;

/// Part of the log of a task.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogRange {
    /// Number of the attempt; `None` for the last one.
    pub(crate) attempt: Option<u32>,
    /// Number of last lines; `None` for all.
    pub(crate) tail: Option<usize>,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("Task not found")]
    Unknown,
    #[error("no attempt {attempt}: the task has had {}", count(*.attempts))]
    NoAttempt { attempt: u32, attempts: u32 },
    #[error("cannot read the log of the task")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn count(attempts: u32) -> String {
    match attempts {
        0 => "no attempt yet".to_owned(),
        1 => "1 attempt".to_owned(),
        attempts => format!("{attempts} attempts"),
    }
}

impl TaskManager {
    /// Returns the log of an attempt as it is now; empty if the attempt has said nothing.
    pub(crate) async fn log(&self, id: TaskId, range: LogRange) -> Result<Vec<u8>, LogError> {
        let (_, info) = self.state(id).await?.ok_or(LogError::Unknown)?;
        let last = info.attempt;
        let text = match range.attempt {
            Some(attempt) => match self.kept_log(id, attempt).await? {
                None if attempt == 0 || attempt > last => {
                    return Err(LogError::NoAttempt { attempt, attempts: last });
                }
                text => text,
            },
            None if info.status == TaskStatus::Running => self.kept_log(id, last).await?,
            // An attempt that the end of a server interrupted does not count, but has its log.
            None => match self.kept_log(id, last + 1).await? {
                None => self.kept_log(id, last).await?,
                interrupted => interrupted,
            },
        };
        let mut text = text.unwrap_or_default();
        if let Some(lines) = range.tail {
            text = tail_lines(&text, lines).to_owned();
        }
        Ok(text)
    }

    async fn kept_log(&self, id: TaskId, attempt: u32) -> Result<Option<Vec<u8>>, LogError> {
        let running = self.inner.attempts.get(id).filter(|it| it.claimed.attempt == attempt);
        let logs = Arc::clone(&self.inner.logs);
        let found = on_disk(move || {
            if let Some(running) = running {
                running.log.flush();
            }
            logs.read(id, attempt)
        });
        if let Some(LogText { text, .. }) = found.await? {
            return Ok(Some(text));
        }
        let stored = self.inner.store.reads.log(id, attempt).await?;
        Ok(stored.map(|LogTail { bytes, tail, .. }| {
            let first = match bytes - tail.len() as u64 {
                0 => String::new(),
                left_out => {
                    format!("[… {left_out} bytes left out: only the end of this log is kept …]\n")
                }
            };
            (first + &tail).into_bytes()
        }))
    }
}

/// Runs work that blocks on the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|panic| Err(panic.into()))
}
