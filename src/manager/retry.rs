//! Retries of finished tasks, one by id or all that match a filter.

use futures_util::future::join_all;
use serde::Serialize;

use super::TaskManager;
use super::errors::{RetryError, SubmitError};
use super::submission::Submission;
use crate::store::{Idempotency, ListFilter, TaskRecord};
use crate::task::{TaskId, TaskStatus};

/// Maximum number of tasks that a bulk retry submits at once, so that other changes are not held up.
const PIECE: usize = 64;

/// Result of a bulk retry.
#[derive(Clone, Copy, Debug, Default, Serialize, utoipa::ToSchema)]
pub(crate) struct RetryCounts {
    /// Finished tasks without a retry that matched.
    matched: usize,
    /// Matching tasks that were submitted again.
    pub(super) submitted: usize,
    /// Matching tasks that cannot be submitted now: an unfinished task writes the same output, or the
    /// submission is no longer valid. Retrying such a task alone returns the reason.
    conflicts: usize,
}

/// Why a bulk retry ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetryAllError {
    #[error(
        "queue full (limit {limit}): submitted {} tasks, retry the rest later", counts.submitted
    )]
    QueueFull {
        limit: usize,
        /// Tasks before that.
        counts: RetryCounts,
    },
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

impl TaskManager {
    /// Submits a finished task again: the same type, parameters, paths and options.
    pub(crate) async fn retry(
        &self,
        id: TaskId,
        idempotency: Option<Idempotency>,
    ) -> Result<TaskId, RetryError> {
        if self.inner.attempts.get(id).is_some() {
            return Err(RetryError::Unfinished(TaskStatus::Running));
        }
        let record = self.inner.store.reads.get(id).await.map_err(SubmitError::Store)?;
        let info = record.ok_or(RetryError::Unknown)?.info;
        if !info.status.is_final() {
            return Err(RetryError::Unfinished(info.status));
        }
        let submission = Submission { idempotency, ..Submission::again(info, false) };
        Ok(self.submit(submission).await?)
    }

    /// Submits all matching finished tasks without a retry again; without a status in the filter, the
    /// failed ones. Repeated or concurrent calls submit each task once.
    ///
    /// # Errors
    /// [`RetryAllError::QueueFull`] with the result so far.
    pub(crate) async fn retry_matching(
        &self,
        mut filter: ListFilter,
    ) -> Result<RetryCounts, RetryAllError> {
        let mut counts = RetryCounts::default();
        if filter.statuses.is_empty() {
            filter.statuses = vec![TaskStatus::Failed];
        }
        filter.statuses.retain(|status| status.is_final());
        filter.retried = Some(false);
        filter.limit = PIECE;
        while !filter.statuses.is_empty() {
            let page = self.inner.store.reads.list(&filter).await.map_err(SubmitError::Store)?;
            let again = |record: TaskRecord| self.submit(Submission::again(record.info, true));
            let submitted = page.records.into_iter().map(again);
            let mut full = None;
            for outcome in join_all(submitted).await {
                match outcome {
                    Ok(_) => counts.submitted += 1,
                    // Retried by another request just now, so no longer a match.
                    Err(SubmitError::RetriedBefore) => continue,
                    Err(SubmitError::QueueFull(limit)) => {
                        full = Some(limit);
                        continue;
                    }
                    Err(
                        SubmitError::OutputInUse(_)
                        | SubmitError::OutputOverlaps(_)
                        | SubmitError::Busy(_)
                        | SubmitError::Invalid(_),
                    ) => counts.conflicts += 1,
                    Err(error) => return Err(error.into()),
                }
                counts.matched += 1;
            }
            if let Some(limit) = full {
                return Err(RetryAllError::QueueFull { limit, counts });
            }
            if page.next.is_none() {
                break;
            }
            filter.cursor = page.next;
        }
        Ok(counts)
    }
}
