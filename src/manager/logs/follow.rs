//! Followers of the log of an unfinished task.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{LogError, LogRange, on_disk};
use crate::manager::TaskManager;
use crate::manager::attempt::Attempt;
use crate::task::{TaskId, TaskLog};

/// Size of the parts of a stream. A follower whose client does not read holds one.
const PART: usize = 16 * 1024;
/// Interval at which a follower looks for the next attempt.
const LOOK: Duration = Duration::from_millis(500);

/// Log of a task that may get more lines, or all of it.
pub(crate) enum Followed {
    Ended(Vec<u8>),
    Unfinished(LogFollower),
}

/// A position in the log of an unfinished task. It buffers nothing: a follower that is too slow for the file
/// gets a mark for what it missed.
#[derive(Debug)]
pub(crate) struct LogFollower {
    manager: TaskManager,
    id: TaskId,
    /// Permit of the stream, for as long as its connection exists.
    pub(crate) place: Option<OwnedSemaphorePermit>,
    /// Whether to end with the attempt rather than with the task.
    only_this: bool,
    /// Number of the attempt that is being read, or was read last.
    attempt: u32,
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    log: TaskLog,
    position: u64,
    /// `None` if the attempt is over.
    running: Option<Arc<Attempt>>,
}

impl TaskManager {
    /// Returns the log of a task, and follows it until the task has ended, or the attempt that was asked
    /// for.
    ///
    /// # Errors
    /// As for [`log`](Self::log), or if no more streams can be opened.
    pub(crate) async fn follow_log(
        &self,
        id: TaskId,
        range: LogRange,
    ) -> Result<Followed, LogError> {
        let place = self.inner.events.place()?;
        let (_, info) = self.state(id).await?.ok_or(LogError::Unknown)?;
        let running = self.inner.attempts.get(id);
        let other = range.attempt.is_some_and(|attempt| {
            running.as_ref().is_none_or(|running| running.claimed.attempt != attempt)
        });
        if info.status.is_final() || other {
            return Ok(Followed::Ended(self.log(id, range).await?));
        }
        let mut follower = LogFollower {
            manager: self.clone(),
            id,
            place: Some(place),
            only_this: range.attempt.is_some(),
            attempt: info.attempt,
            reading: None,
        };
        if info.attempt > 0 {
            let mut reading = follower.open(info.attempt);
            if let Some(lines) = range.tail {
                let log = reading.log.clone();
                reading.position = on_disk(move || log.position_of_last(lines)).await?;
            }
            follower.reading = Some(reading);
        }
        Ok(Followed::Unfinished(follower))
    }
}

impl LogFollower {
    /// Returns the next lines; `None` at the end, and when the server shuts down.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(reading) = &mut self.reading else {
                match self.next_attempt().await {
                    Some(attempt) => {
                        self.reading = Some(self.open(attempt));
                        let is_first = std::mem::replace(&mut self.attempt, attempt) == 0;
                        if !is_first {
                            return Ok(Some(format!("[attempt {attempt}]\n").into()));
                        }
                        continue;
                    }
                    None => return Ok(None),
                }
            };
            if let Some(lines) = reading.next().await? {
                return Ok(Some(lines));
            }
            self.reading = None;
            if self.only_this {
                return Ok(None);
            }
        }
    }

    fn open(&self, attempt: u32) -> Reading {
        let inner = &self.manager.inner;
        let running = inner.attempts.get(self.id).filter(|it| it.claimed.attempt == attempt);
        let log = match &running {
            Some(running) => running.log.clone(),
            None => inner.logs.log(self.id, attempt),
        };
        Reading { log, position: 0, running }
    }

    /// Waits for the next attempt; `None` if there will be none.
    async fn next_attempt(&self) -> Option<u32> {
        let inner = &self.manager.inner;
        loop {
            // Registers before it reads, so as not to miss an end in between.
            let waiter = inner.waiters.register(self.id);
            let (_, info) = self.manager.state(self.id).await.ok()??;
            if info.attempt > self.attempt {
                return Some(self.attempt + 1);
            }
            if info.status.is_final() {
                return None;
            }
            tokio::select! {
                () = waiter.ended() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = inner.draining.cancelled() => return None,
            }
        }
    }
}

impl Reading {
    /// Returns the next lines; `None` once the attempt is over and all of its log read.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let changed = self.log.changed();
            // In this order: after the log was closed, nothing is added.
            let over = self.running.is_none() || self.log.is_closed();
            let (log, position) = (self.log.clone(), self.position);
            let (lines, position) = on_disk(move || {
                if over {
                    log.flush();
                }
                log.read(position, PART)
            })
            .await?;
            self.position = position;
            if !lines.is_empty() {
                return Ok(Some(lines.into()));
            }
            if over {
                if let Some(running) = &self.running {
                    running.over().await;
                }
                return Ok(None);
            }
            changed.await;
        }
    }
}
