//! Storage of the progress of running tasks, for all of them at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::attempts::Attempts;
use crate::store::{Store, StoredProgress};
use crate::task::TaskId;

/// Interval at which progress is stored.
const INTERVAL: Duration = Duration::from_millis(500);

/// Stores new progress until the server starts to drain.
pub(crate) async fn store_progress(
    store: Store,
    attempts: Arc<Attempts>,
    draining: CancellationToken,
) {
    // Epoch and version of the last stored progress.
    let mut stored = HashMap::<TaskId, (i64, u64)>::new();
    let work = async {
        loop {
            attempts.occupied().await;
            tokio::time::sleep(INTERVAL).await;
            let mut current = HashMap::new();
            let mut changes = Vec::new();
            for attempt in attempts.all() {
                let (id, progress) = (attempt.claimed.task_id, attempt.progress.read());
                let version = (attempt.epoch, progress.version);
                current.insert(id, version);
                let known = stored.get(&id).copied().unwrap_or((attempt.epoch, 0));
                if known != version {
                    changes.push(StoredProgress {
                        seq: attempt.seq,
                        epoch: attempt.epoch,
                        percent: progress.percent,
                        message: progress.message,
                        updated_at: progress.updated_at,
                    });
                }
            }
            stored = current;
            // The next progress makes up for one that cannot be stored; the writer logs the error.
            join_all(changes.into_iter().map(|progress| store.progress(progress))).await;
        }
    };
    draining.run_until_cancelled(work).await;
}
