//! The [`TaskManager`]: accepts submissions, runs claimed tasks, answers reads.
//!
//! Tasks are opaque to it: the registry makes them. Its memory is a fold over the store's commits:
//! attempts, waiting requests, events and metrics all follow from that one stream.

mod admission;
mod attempt;
mod cancel;
mod due;
mod errors;
mod events;
mod fold;
mod leftovers;
mod logs;
mod metrics;
mod reads;
mod rendered;
mod retry;
mod start;
mod stats;
mod submission;
mod types;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::Store;
pub(crate) use crate::store::{Idempotency, ListFilter, MAX_PAGE_BYTES, StoreError};
use crate::task::{CpuSlots, Files, LogFolder};
use crate::tasks::TaskRegistry;
use admission::{AdmissionLimits, KeyTurns};
pub(crate) use attempt::MAX_RESULT_BYTES;
use attempt::{Attempts, Runner};
pub(crate) use cancel::{CancelCounts, CancelOutcome};
pub(crate) use errors::{OutputError, RetryError, SubmitError};
use events::Events;
pub(crate) use events::{Event, EventId, EventKind, Interest, Subscription, WatchError};
pub use logs::LogLimits;
pub(crate) use logs::{Followed, LogError, LogFollower, LogRange};
use metrics::Metrics;
pub(crate) use rendered::Rendered;
pub(crate) use retry::{RetryAllError, RetryCounts};
pub use start::{ManagerOptions, StartError};
use stats::History;
pub(crate) use stats::Minute;
pub(crate) use submission::{MAX_TAGS, Submission};
use types::TypeLimits;
use waiters::Waiters;

/// Handle for all operations on tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TaskManager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    registry: Arc<TaskRegistry>,
    files: Arc<Files>,
    logs: Arc<LogFolder>,
    admission: AdmissionLimits,
    keys: Arc<KeyTurns>,
    types: TypeLimits,
    attempts: Arc<Attempts>,
    waiters: Arc<Waiters>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    history: Arc<History>,
    cpu_slots: CpuSlots,
    /// Cancelled by `drain` first: no more submissions and waits.
    draining: CancellationToken,
    runner: Arc<Runner>,
}

impl TaskManager {
    /// Task types and their code.
    pub(crate) fn registry(&self) -> &TaskRegistry {
        &self.inner.registry
    }

    /// Folders that tasks may use.
    pub(crate) fn files(&self) -> &Files {
        &self.inner.files
    }

    /// Fails if an accepted submission could not be stored.
    pub(crate) fn check_files(&self) -> Result<(), StoreError> {
        self.inner.store.reads.check()
    }

    /// Whether the server has begun to shut down.
    pub(crate) fn is_draining(&self) -> bool {
        self.inner.draining.is_cancelled()
    }

    /// Ends submissions, waits and claims. Gives running tasks `grace` to end, then returns the rest to
    /// pending for the next start.
    pub async fn drain(&self, grace: Duration) {
        let inner = &self.inner;
        inner.draining.cancel();
        inner.store.stop_claiming().await;
        if tokio::time::timeout(grace, inner.attempts.emptied()).await.is_err() {
            let tasks = inner.attempts.len();
            tracing::info!(tasks, "grace period over, returning running tasks to pending");
        }
        inner.runner.interrupt_all().await;
        inner.attempts.emptied().await;
        inner.events.close();
    }

    /// Closes the database.
    pub async fn close(&self) {
        self.inner.store.close().await;
    }
}
