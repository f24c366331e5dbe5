//! Cancels tasks, one or many.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::live::CancelRequest;
use super::{CancelCounts, CancelOutcome, TaskManager};
use crate::store::{CancelEffect, Cancellation, ListFilter, StoreError};
use crate::task::{TaskId, TaskStatus, Timestamp};

/// How many tasks are cancelled at once where many are.
const CANCEL_PIECE: usize = 1000;
/// How long a cancellation waits for a running task to stop before it answers.
const CANCEL_WAIT: Duration = Duration::from_secs(1);
/// How long a cancellation that came too late waits until the end of the task is stored: time enough
/// for a slow disk, and little enough that its client is still there.
const END_WAIT: Duration = Duration::from_secs(4);

/// How often a cancellation that met a running task looks for its attempt in memory. It is there once the claim is
/// told, so one look more is enough, unless attempts end and begin meanwhile.
const LOOKS: usize = 3;

/// Whether a cancellation means running tasks too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Included,
    Spared,
}

impl TaskManager {
    /// Cancels a task. A running one is asked to stop and given a moment to do so.
    pub(crate) async fn cancel(&self, id: TaskId) -> Result<CancelOutcome, StoreError> {
        let waiter = self.shared.waiters.register(id);
        match self.request_cancel(id, Running::Included).await? {
            Some(CancelOutcome::Requested) | None => {
                Ok(match tokio::time::timeout(CANCEL_WAIT, waiter.ended()).await {
                    Ok(()) => CancelOutcome::Cancelled,
                    Err(_) => CancelOutcome::Requested,
                })
            }
            Some(outcome) => Ok(outcome),
        }
    }

    /// Cancels a pending task; asks a running one to stop, and does not wait until it has. `None` if
    /// it runs and running tasks are to be spared.
    async fn request_cancel(
        &self,
        id: TaskId,
        running: Running,
    ) -> Result<Option<CancelOutcome>, StoreError> {
        let shared = &self.shared;
        let at = Timestamp::now();
        let patience = Instant::now() + END_WAIT;
        for _ in 0..LOOKS {
            // A running task is stopped in memory first: from then on it cannot complete.
            let live = shared.live.get(id).filter(|_| running == Running::Included);
            let accepted_by_runner = match live {
                None => false,
                Some(live) => match live.request_cancel(at) {
                    CancelRequest::Accepted => true,
                    CancelRequest::TooLate => match timeout_at(patience, live.end_tried()).await {
                        Ok(tried) => {
                            tried?;
                            false
                        }
                        Err(_) => return Ok(Some(CancelOutcome::Ending)),
                    },
                },
            };
            let wish = Cancellation { id, at, accepted_by_runner };
            return Ok(Some(match shared.store.cancel(wish).await? {
                // It was claimed a moment ago, it goes on with another attempt, or it runs elsewhere.
                CancelEffect::NotAccepted if running == Running::Included => continue,
                CancelEffect::NotAccepted => return Ok(None),
                CancelEffect::Cancelled { .. } => CancelOutcome::Cancelled,
                CancelEffect::Unknown => CancelOutcome::Unknown,
                CancelEffect::AlreadyFinal(TaskStatus::Cancelled) if accepted_by_runner => {
                    CancelOutcome::Cancelled
                }
                CancelEffect::AlreadyFinal(status) => CancelOutcome::AlreadyFinal(status),
                CancelEffect::Requested => CancelOutcome::Requested,
            }));
        }
        Ok(Some(CancelOutcome::Ending))
    }

    /// Cancels all unfinished tasks that match, in pieces between which other changes have their
    /// turn.
    pub(crate) async fn cancel_matching(
        &self,
        mut filter: ListFilter,
    ) -> Result<CancelCounts, StoreError> {
        let mut counts = CancelCounts::default();
        if filter.statuses.is_empty() {
            filter.statuses = vec![TaskStatus::Pending, TaskStatus::Running];
        }
        filter.statuses.retain(|status| !status.is_final());
        let running = match filter.statuses.contains(&TaskStatus::Running) {
            true => Running::Included,
            false => Running::Spared,
        };
        filter.limit = CANCEL_PIECE;
        while !filter.statuses.is_empty() {
            let page = self.shared.store.list(&filter).await?;
            let records = page.records.iter();
            let requests = records.map(|record| self.request_cancel(record.info.task_id, running));
            for outcome in futures_util::future::try_join_all(requests).await? {
                match outcome {
                    Some(CancelOutcome::Cancelled) => counts.cancelled += 1,
                    Some(CancelOutcome::Requested) => counts.requested += 1,
                    // It ended by itself just now.
                    Some(
                        CancelOutcome::AlreadyFinal(_)
                        | CancelOutcome::Ending
                        | CancelOutcome::Unknown,
                    ) => {}
                    // It was claimed just now, so it does not match any more.
                    None => continue,
                }
                counts.matched += 1;
            }
            match page.next {
                None => break,
                next => filter.cursor = next,
            }
        }
        Ok(counts)
    }
}
