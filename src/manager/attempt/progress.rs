//! Stores the progress of running tasks, now and then for all of them at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::attempts::Attempts;
use crate::store::{Store, StoredProgress};
use crate::task::TaskId;

/// Pause between two rounds.
const INTERVAL: Duration = Duration::from_millis(500);

/// Stores new progress while any task runs, until the server begins to stop.
pub(in crate::manager) async fn store_progress(
    store: Store,
    attempts: Arc<Attempts>,
    draining: CancellationToken,
) {
    // Epoch and version of the progress that was stored last.
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
            // Progress that cannot be stored is made good by the next one; the writer logs why.
            join_all(changes.into_iter().map(|progress| store.progress(progress))).await;
        }
    };
    draining.run_until_cancelled(work).await;
}
