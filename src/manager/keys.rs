//! Submissions with the same idempotency key take turns, so that the second finds what came of the
//! first.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

type Turns = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

/// The keys of the submissions that are under way.
#[derive(Debug, Default)]
pub(super) struct KeyTurns(Mutex<Turns>);

impl KeyTurns {
    /// Waits until no other submission with this key is under way.
    pub(super) async fn take(self: &Arc<Self>, key: &str) -> Turn {
        let lock = Arc::clone(self.0.lock().entry(key.to_owned()).or_default());
        // Made before the wait, so that one who gives up waiting cleans up as well.
        let mut turn =
            Turn { turns: Arc::clone(self), key: key.to_owned(), lock: Some(lock), guard: None };
        if let Some(lock) = &turn.lock {
            turn.guard = Some(Arc::clone(lock).lock_owned().await);
        }
        turn
    }
}

/// One submission's turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<KeyTurns>,
    key: String,
    lock: Option<Arc<tokio::sync::Mutex<()>>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock();
        (self.guard, self.lock) = (None, None);
        // Those who wait hold the lock too.
        if turns.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            turns.remove(&self.key);
        }
    }
}
