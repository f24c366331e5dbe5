//! Cancellation of tasks, one or many.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::TaskManager;
use super::attempt::CancelRequest;
use crate::store::{CancelEffect, Cancellation, ListFilter, StoreError};
use crate::task::{TaskId, TaskStatus, Timestamp};

/// Upper limit of the tasks that a bulk cancellation cancels at once.
const CANCEL_PIECE: usize = 1000;
/// Longest wait for a running task to stop before a cancellation is answered.
const CANCEL_WAIT: Duration = Duration::from_secs(1);
/// Longest wait for the end of a task to be stored, if a cancellation came too late: enough for a slow
/// disk, and little enough for the client to be still there.
const END_WAIT: Duration = Duration::from_secs(4);

/// Looks for the attempt of a running task in memory. It is there once the claim was folded, so a second look
/// is enough, unless attempts end and begin meanwhile.
const LOOKS: usize = 3;

/// Result of a request to cancel a task.
#[derive(Debug)]
pub(crate) enum CancelOutcome {
    Cancelled,
    /// It runs, was asked to stop, and has not done so yet.
    Requested,
    AlreadyFinal(TaskStatus),
    /// It runs, but its attempt is not there to be asked: its end is still being stored.
    Ending,
    Unknown,
}

/// Result of a bulk cancellation.
#[derive(Clone, Copy, Debug, Default, Serialize, utoipa::ToSchema)]
#[schema(as = CancelAllResponse)]
pub(crate) struct CancelCounts {
    /// Unfinished tasks that matched.
    matched: usize,
    /// Matching tasks that are now cancelled.
    cancelled: usize,
    /// Matching tasks that are running and were asked to stop.
    requested: usize,
}

/// Treatment of running tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Included,
    Spared,
}

impl TaskManager {
    /// Cancels a task. A running one is asked to stop and given a moment to do so.
    pub(crate) async fn cancel(&self, id: TaskId) -> Result<CancelOutcome, StoreError> {
        let waiter = self.inner.waiters.register(id);
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
        let inner = &self.inner;
        let at = Timestamp::now();
        let patience = Instant::now() + END_WAIT;
        for _ in 0..LOOKS {
            // A running task is stopped in memory first: from then on it cannot complete.
            let attempt = inner.attempts.get(id).filter(|_| running == Running::Included);
            let accepted_by_attempt = match attempt {
                None => false,
                Some(attempt) => match attempt.request_cancel(at) {
                    CancelRequest::Accepted => true,
                    CancelRequest::TooLate => match timeout_at(patience, attempt.end_tried()).await
                    {
                        Ok(tried) => {
                            tried?;
                            false
                        }
                        Err(_) => return Ok(Some(CancelOutcome::Ending)),
                    },
                },
            };
            let asked = Cancellation { id, at, accepted_by_attempt };
            return Ok(Some(match inner.store.cancel(asked).await? {
                // It was claimed a moment ago, it goes on with another attempt, or it runs elsewhere.
                CancelEffect::NotAccepted if running == Running::Included => continue,
                CancelEffect::NotAccepted => return Ok(None),
                CancelEffect::Cancelled { .. } => CancelOutcome::Cancelled,
                CancelEffect::Unknown => CancelOutcome::Unknown,
                CancelEffect::AlreadyFinal(TaskStatus::Cancelled) if accepted_by_attempt => {
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
            let page = self.inner.store.list(&filter).await?;
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
