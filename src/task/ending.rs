//! What has to be over before an attempt ends.

use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Guards that delay the end of one attempt. The task takes them, the runner waits for them. Most tasks
/// take none, so the parts are made on first use.
#[derive(Debug, Default)]
pub(crate) struct Ending(OnceLock<Parts>);

#[derive(Debug, Default)]
struct Parts {
    guards: TaskTracker,
    hurry: CancellationToken,
}

impl Ending {
    pub(super) fn hold(&self) -> TaskTrackerToken {
        self.0.get_or_init(Parts::default).guards.token()
    }

    pub(super) async fn hurried(&self) {
        self.0.get_or_init(Parts::default).hurry.cancelled().await;
    }

    /// Asks for the end at once.
    pub(crate) fn hurry(&self) {
        if let Some(parts) = self.0.get() {
            parts.hurry.cancel();
        }
    }

    /// Resolves when all guards are dropped.
    pub(crate) async fn finished(&self) {
        if let Some(parts) = self.0.get() {
            parts.guards.close();
            parts.guards.wait().await;
        }
    }
}
