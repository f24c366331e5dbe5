//! Upkeep of log files: stores the ends of logs that a crash left behind, and removes files that are too old,
//! exceed the space, or belong to erased tasks.
//!
//! Each pass lists the folder and looks up the files in the database, a few at a time. The pause after a pass is at
//! least a hundred times as long as the pass, so that passes take a hundredth of a core, however many files there
//! are.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::on_disk;
use crate::manager::attempt::{self, Attempts};
use crate::store::{LogOwner, Store, StoreError};
use crate::task::{LogEntry, LogFolder, TaskStatus, with_causes};

/// Number of files in one step.
const STEP: usize = 256;
/// Number of files that one pass can remove for lack of space.
const MAX_OLDEST: usize = 4096;
/// Limits of the pause between two passes, which is a tenth of the shortest lifetime.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Minimum pause, in durations of the last pass.
const DISTANCE: u32 = 100;

/// Limits on the files of logs.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// Age at which the file of a finished log is removed.
    pub retention: Duration,
    /// Space on the disk for all files, in bytes. The oldest are removed first.
    pub space: u64,
}

/// Runs until the store is closed. `retention` is that of tasks.
pub(in crate::manager) async fn tidy(
    logs: Arc<LogFolder>,
    store: Store,
    attempts: Arc<Attempts>,
    limits: LogLimits,
    retention: Option<Duration>,
) {
    let shortest = retention.map_or(limits.retention, |tasks| tasks.min(limits.retention));
    let pause = (shortest / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    loop {
        let begin = Instant::now();
        let mut pass = Pass {
            logs: &logs,
            store: &store,
            attempts: &attempts,
            limits,
            bytes: 0,
            oldest: BinaryHeap::new(),
        };
        match pass.run().await {
            Ok(()) => {}
            Err(TidyError::Store(StoreError::Closed)) => return,
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "cannot tidy the logs of tasks")
            }
        }
        tokio::time::sleep(pause.max(begin.elapsed() * DISTANCE)).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum TidyError {
    #[error("cannot read the folder of the logs")]
    Folder(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One look at all files.
struct Pass<'p> {
    logs: &'p Arc<LogFolder>,
    store: &'p Store,
    attempts: &'p Attempts,
    limits: LogLimits,
    /// Space of all files so far.
    bytes: u64,
    /// The oldest files so far that may be removed, the newest of them first.
    oldest: BinaryHeap<LogEntry>,
}

impl Pass<'_> {
    async fn run(&mut self) -> Result<(), TidyError> {
        let logs = Arc::clone(self.logs);
        let mut entries = on_disk(move || logs.entries()).await?;
        loop {
            let (step, rest) = on_disk(move || {
                let step: Vec<_> = entries.by_ref().take(STEP).collect();
                Ok((step, entries))
            })
            .await?;
            entries = rest;
            if step.is_empty() {
                break;
            }
            self.look_at(&step).await?;
        }
        let mut excess = self.bytes.saturating_sub(self.limits.space);
        for entry in std::mem::take(&mut self.oldest).into_sorted_vec() {
            if excess == 0 {
                break;
            }
            self.remove(entry).await?;
            excess = excess.saturating_sub(entry.bytes);
        }
        Ok(())
    }

    async fn look_at(&mut self, entries: &[LogEntry]) -> Result<(), TidyError> {
        let keys: Vec<_> = entries.iter().map(|entry| (entry.id, entry.attempt)).collect();
        let owners = self.store.reads.log_owners(&keys).await?;
        for entry in entries {
            let key = (entry.id, entry.attempt);
            let owner = owners.iter().find(|(known, _)| *known == key).map(|(_, owner)| *owner);
            self.bytes += entry.bytes;
            // Checked after the database, so that an attempt that began meanwhile does not count as finished.
            if self.attempts.get(entry.id).is_some_and(|it| it.claimed.attempt == entry.attempt) {
                continue;
            }
            let old = entry.written_at.elapsed().is_ok_and(|age| age > self.limits.retention);
            match owner {
                None => self.remove(*entry).await?,
                // The attempt was interrupted and runs again.
                Some(owner) if !is_over(owner, entry.attempt) => {}
                Some(owner) => {
                    self.store_end(owner, entry).await?;
                    match old {
                        true => self.remove(*entry).await?,
                        false => self.remember(*entry),
                    }
                }
            }
        }
        Ok(())
    }

    /// Stores the end of a log, if the server was killed before it could.
    async fn store_end(&self, owner: LogOwner, entry: &LogEntry) -> Result<(), TidyError> {
        if !owner.is_stored {
            let log = self.logs.log(entry.id, entry.attempt);
            if let Some(tail) = attempt::finish_log(owner.seq, entry.attempt, log).await {
                attempt::store_log(self.store, tail).await?;
            }
        }
        Ok(())
    }

    fn remember(&mut self, entry: LogEntry) {
        self.oldest.push(entry);
        if self.oldest.len() > MAX_OLDEST {
            self.oldest.pop();
        }
    }

    async fn remove(&mut self, entry: LogEntry) -> Result<(), TidyError> {
        let logs = Arc::clone(self.logs);
        on_disk(move || logs.remove(entry.id, entry.attempt)).await?;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Ok(())
    }
}

fn is_over(owner: LogOwner, attempt: u32) -> bool {
    let waits_for_next = owner.status == TaskStatus::Pending && attempt == owner.attempts;
    owner.status.is_final() || attempt < owner.attempts || waits_for_next
}
