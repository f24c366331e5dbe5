//! Cancellation of tasks, one or many.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::TaskManager;
use super::attempt::CancelRequest;
use crate::store::{CancelEffect, Cancellation, ListFilter, StoreError};
use crate::task::{TaskId, TaskStatus, Timestamp};

/// Maximum number of tasks that a bulk cancellation cancels at once.
const CANCEL_PIECE: usize = 1000;
/// Maximum wait for a running task to stop before a cancellation is answered.
const CANCEL_WAIT: Duration = Duration::from_secs(1);
/// Maximum wait for the end of a task to be stored after a cancellation that came too late. Allows for a
/// slow disk, and is shorter than clients' timeouts.
const END_WAIT: Duration = Duration::from_secs(4);

/// Tries to find the attempt of a running task in memory. It is there once the claim is folded, so a
/// second try succeeds, unless attempts end and start meanwhile.
const TRIES: usize = 3;

/// Result of a request to cancel a task.
#[derive(Debug)]
pub(crate) enum CancelOutcome {
    Cancelled,
    /// Is running, and was asked to stop.
    Requested,
    AlreadyFinal(TaskStatus),
    /// Is running, but its end is still being stored.
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

/// Treatment of running tasks by a cancellation.
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
                let ended = tokio::time::timeout(CANCEL_WAIT, waiter.ended()).await;
                Ok(ended.map_or(CancelOutcome::Requested, |()| CancelOutcome::Cancelled))
            }
            Some(outcome) => Ok(outcome),
        }
    }

    /// Cancels a pending task, or asks a running one to stop without waiting for it. `None` if it is
    /// running and such tasks are spared.
    async fn request_cancel(
        &self,
        id: TaskId,
        running: Running,
    ) -> Result<Option<CancelOutcome>, StoreError> {
        let inner = &self.inner;
        let at = Timestamp::now();
        let patience = Instant::now() + END_WAIT;
        for _ in 0..TRIES {
            // Memory first: once the attempt accepts the request, the task cannot complete.
            let attempt = inner.attempts.get(id).filter(|_| running == Running::Included);
            let request = attempt.as_ref().map(|attempt| attempt.request_cancel(at));
            let accepted_by_attempt = request == Some(CancelRequest::Accepted);
            if let Some(attempt) = attempt.filter(|_| !accepted_by_attempt) {
                match timeout_at(patience, attempt.end_tried()).await {
                    Ok(tried) => tried?,
                    Err(_) => return Ok(Some(CancelOutcome::Ending)),
                }
            }
            let asked = Cancellation { id, at, accepted_by_attempt };
            return Ok(Some(match inner.store.cancel(asked).await? {
                // Claimed just now, perhaps for another attempt: try again.
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

    /// Cancels all matching unfinished tasks, piece by piece so that other changes are not held up.
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
            let page = self.inner.store.reads.list(&filter).await?;
            let records = page.records.iter();
            let requests = records.map(|record| self.request_cancel(record.info.task_id, running));
            for outcome in futures_util::future::try_join_all(requests).await? {
                match outcome {
                    Some(CancelOutcome::Cancelled) => counts.cancelled += 1,
                    Some(CancelOutcome::Requested) => counts.requested += 1,
                    // Ended by itself just now.
                    Some(
                        CancelOutcome::AlreadyFinal(_)
                        | CancelOutcome::Ending
                        | CancelOutcome::Unknown,
                    ) => {}
                    // Claimed just now, so no longer a match.
                    None => continue,
                }
                counts.matched += 1;
            }
            if page.next.is_none() {
                break;
            }
            filter.cursor = page.next;
        }
        Ok(counts)
    }
}
