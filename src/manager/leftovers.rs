//! Removal of the private folders that an earlier server left.

use std::sync::Arc;

use crate::store::Store;
use crate::task::{StateFolder, with_causes};

/// Removes the folders that belong to no unfinished task, one at a time.
pub(super) async fn remove(folder: Arc<StateFolder>, store: Store) {
    let tidied = Arc::clone(&folder);
    // Fails only if the server stops.
    let tasks = tokio::task::spawn_blocking(move || tidied.tidy()).await.unwrap_or_default();
    for id in tasks {
        match store.reads.get(id).await {
            Ok(Some(record)) if !record.info.status.is_final() => {}
            Ok(_) => folder.forget(id),
            Err(error) => {
                let error = with_causes(&error);
                return tracing::warn!(error, "cannot tell which private folders are still in use");
            }
        }
    }
}
