//! Event streams: changes of tasks, published to clients.
//!
//! A stream is a cursor into one bounded log; one that resumes starts further back. While no stream is
//! or was recently open, nothing is logged.

mod event;
mod log;
mod subscription;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::TaskManager;
use super::attempt::{Attempts, Stamp};
use crate::store::StoreError;
use crate::task::{TaskId, TaskInfo, TaskStatus};
pub(crate) use event::{Event, EventId, EventKind, Interest};
use log::Log;
pub(crate) use subscription::Subscription;

/// Interval at which the progress of running tasks is published.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Why a stream was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("Task not found")]
    Unknown,
    #[error("the server is shutting down: try again after its restart")]
    Draining,
    #[error("too many event streams (limit {0}): try again later")]
    TooMany(usize),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Publishes events, and opens streams of them.
#[derive(Debug)]
pub(super) struct Events {
    log: Arc<Log>,
    /// One permit per stream that may be open, held by its [`Subscription`].
    places: Arc<Semaphore>,
    max_streams: usize,
    /// Random id of this run of the server.
    run: u64,
    closed: CancellationToken,
}

impl Events {
    /// Creates the log. Streams beyond `max_streams` are refused.
    pub(super) fn new(max_streams: usize) -> Self {
        Self {
            log: Arc::new(Log::new()),
            places: Arc::new(Semaphore::new(max_streams)),
            max_streams,
            // Each `RandomState` has a random seed.
            run: RandomState::new().hash_one(0),
            closed: CancellationToken::new(),
        }
    }

    /// Publishes a change of status, if a stream may need it. Call this **after** reads show the change: a
    /// stream that starts later then reads it.
    pub(super) fn changed(
        &self,
        from: Option<TaskStatus>,
        epoch: i64,
        info: impl FnOnce() -> TaskInfo,
    ) {
        if self.log.is_logging() {
            let info = info();
            let stamp = Stamp::of(epoch, info.status);
            self.log.append(EventKind::State, from, stamp, info);
        }
    }

    /// Number of open streams.
    pub(super) fn streams(&self) -> usize {
        self.max_streams - self.places.available_permits()
    }

    /// Ends all streams.
    pub(super) fn close(&self) {
        self.closed.cancel();
        self.log.close();
    }

    /// Takes the place of a stream.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, WatchError> {
        if self.closed.is_cancelled() {
            return Err(WatchError::Draining);
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| WatchError::TooMany(self.max_streams))
    }

    /// Opens a stream that resumes after the client's last event, or starts now if there is none or the
    /// log no longer reaches it. Returns whether it resumes.
    fn subscribe(
        &self,
        interest: Interest,
        last: Option<EventId>,
    ) -> Result<(Subscription, bool), WatchError> {
        let place = self.place()?;
        let latest = self.log.begin();
        let known = |last: &EventId| last.run == self.run && self.log.reaches(last.number);
        let resumed = last.filter(known);
        let subscription = Subscription {
            log: Arc::clone(&self.log),
            interest,
            run: self.run,
            cursor: resumed.map_or(latest, |last| last.number),
            gap: last.is_some() && resumed.is_none(),
            present: VecDeque::new(),
            seen: HashMap::new(),
            place: Some(place),
        };
        Ok((subscription, resumed.is_some()))
    }
}

/// Publishes the progress of running tasks at an interval, until the streams are closed. Progress changes
/// too often to publish each change.
pub(super) async fn publish_progress(events: Arc<Events>, attempts: Arc<Attempts>) {
    let mut ticks = interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_published = HashMap::<(TaskId, i64), Stamp>::new();
    let work = async {
        loop {
            ticks.tick().await;
            if !events.log.is_logging() {
                continue;
            }
            let mut published = HashMap::new();
            for attempt in attempts.all() {
                let key = (attempt.claimed.task_id, attempt.epoch);
                let last = last_published.get(&key).copied();
                let mut stamp = last.unwrap_or(Stamp::of(attempt.epoch, TaskStatus::Running));
                if let Some((now, info)) = attempt.snapshot_after(stamp) {
                    stamp = now;
                    let from = Some(TaskStatus::Running);
                    // Holds the lock that the end of the attempt takes, so that the end comes last.
                    attempt.unless_over(|| {
                        events.log.append(EventKind::Progress, from, stamp, info);
                    });
                }
                published.insert(key, stamp);
            }
            last_published = published;
            events.log.tidy(events.streams());
        }
    };
    events.closed.run_until_cancelled(work).await;
}

impl TaskManager {
    /// Opens a stream of events: first the current states, unless the client resumes, then each change.
    ///
    /// # Errors
    /// If the task is unknown, or no stream can be opened now.
    pub(crate) async fn watch(
        &self,
        interest: Interest,
        last: Option<EventId>,
    ) -> Result<Subscription, WatchError> {
        // Subscribes before it reads, so that changes in between are in the stream.
        let (mut subscription, resumed) = self.inner.events.subscribe(interest.clone(), last)?;
        let present = match &interest {
            Interest::Task(id) => {
                let state = self.state(*id).await?.ok_or(WatchError::Unknown)?;
                // The end is always shown, because nothing else would end the stream.
                let ended = state.1.status.is_final();
                let shown =
                    resumed && (!ended || self.inner.events.log.has_end(*id, subscription.cursor));
                if shown { Vec::new() } else { vec![state] }
            }
            Interest::Matching(_) if resumed => Vec::new(),
            Interest::Matching(filter) => self.states(filter).await?.0,
        };
        subscription.begin(present);
        Ok(subscription)
    }
}
