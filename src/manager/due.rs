//! Tasks that wait for a time: one timer for all of them, on the monotonic clock.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_util::time::DelayQueue;

use crate::store::Store;
use crate::task::{Timestamp, with_causes};

/// The longest pause between two attempts.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(600);

/// How long to leave the database alone after it refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A task, by `seq`, and how long it has to wait.
pub(super) type Due = (i64, Duration);

/// What is left of a stored time. It was written by the wall clock, which may have jumped since,
/// so no task waits for longer than it was ever told to.
pub(super) fn remaining(due_at: i64, now: Timestamp) -> Duration {
    let micros = u64::try_from(due_at - now.as_micros()).unwrap_or(0);
    Duration::from_micros(micros).min(MAX_BACKOFF)
}

/// Makes tasks ready when their time has come. Ends when nobody can send any more.
pub(super) async fn promote(store: Store, mut incoming: mpsc::UnboundedReceiver<Due>) {
    let mut waiting = DelayQueue::new();
    loop {
        tokio::select! {
            due = incoming.recv() => match due {
                Some((seq, delay)) => {
                    waiting.insert(seq, delay);
                }
                None => return,
            },
            Some(expired) = waiting.next(), if !waiting.is_empty() => {
                let seq = expired.into_inner();
                if let Err(error) = store.promote(vec![seq]).await {
                    tracing::warn!(error = with_causes(&error), "cannot make a waiting task ready");
                    waiting.insert(seq, RETRY_AFTER);
                }
            }
        }
    }
}
