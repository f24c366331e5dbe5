//! Stores the progress of running tasks, now and then for all of them at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Shared;
use super::live::LiveTask;
use crate::store::{Store, StoredProgress};

/// Progress is stored at most this often.
const INTERVAL: Duration = Duration::from_millis(500);

/// Stores what is new while any task runs, until the server begins to stop.
pub(super) async fn run(shared: Arc<Shared>) {
    let work = async {
        loop {
            shared.live.occupied().await;
            tokio::time::sleep(INTERVAL).await;
            let live = shared.live.all();
            join_all(live.iter().map(|live| store(&shared.store, live))).await;
        }
    };
    tokio::select! {
        () = shared.draining.cancelled() => {}
        () = work => {}
    }
}

async fn store(store: &Store, live: &LiveTask) {
    let progress = live.progress.read();
    if !live.is_news(progress.version) {
        return;
    }
    let stored = StoredProgress {
        seq: live.seq,
        epoch: live.epoch,
        percent: progress.percent,
        message: progress.message,
        updated_at: progress.updated_at,
    };
    // Progress that could not be stored is made good by what is stored next; the writer logs why.
    let _ = store.progress(stored).await;
}
