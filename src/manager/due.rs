//! Tasks that wait for a time: one timer for all of them, on the monotonic clock.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio_util::time::DelayQueue;

use crate::store::Store;
use crate::task::{Timestamp, with_causes};

/// The longest pause between two attempts.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(600);

/// How long a task sleeps at the most before the clock is looked at again.
const NAP: Duration = Duration::from_secs(60);

/// How many tasks are made ready at once.
const PIECE: usize = 1000;

/// How long to leave the database alone after it refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// When a task, named by its `seq`, becomes ready.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// After a pause, whatever the wall clock does meanwhile.
    After(i64, Duration),
    /// When the wall clock shows the time that a client asked for.
    At(i64, Timestamp),
}

impl Due {
    /// For a time that was stored. That of a retry was written by a wall clock that may have jumped
    /// since, so no retry waits for longer than it was ever told to.
    pub(super) fn stored(seq: i64, due_at: Timestamp, run_at: Option<Timestamp>) -> Self {
        if run_at == Some(due_at) {
            return Self::At(seq, due_at);
        }
        Self::After(seq, left(due_at).min(MAX_BACKOFF))
    }

    /// How long to sleep before looking again.
    fn nap(self) -> Duration {
        match self {
            Self::After(_, pause) => pause,
            Self::At(_, time) => left(time).min(NAP),
        }
    }
}

fn left(time: Timestamp) -> Duration {
    let micros = time.as_micros().saturating_sub(Timestamp::now().as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Makes tasks ready when their time has come. Ends when nobody can send any more.
pub(super) async fn promote(store: Store, mut incoming: mpsc::UnboundedReceiver<Due>) {
    let mut waiting = DelayQueue::new();
    loop {
        let first = tokio::select! {
            due = incoming.recv() => match due {
                Some(due) => {
                    waiting.insert(due, due.nap());
                    continue;
                }
                None => return,
            },
            Some(first) = waiting.next(), if !waiting.is_empty() => first.into_inner(),
        };
        // Those whose time has come together are made ready together.
        let mut expired = vec![first];
        while expired.len() < PIECE
            && let Some(Some(next)) = waiting.next().now_or_never()
        {
            expired.push(next.into_inner());
        }
        let mut ready = Vec::with_capacity(expired.len());
        for due in expired {
            match due {
                Due::At(_, time) if !left(time).is_zero() => {
                    waiting.insert(due, due.nap());
                }
                Due::After(seq, _) | Due::At(seq, _) => ready.push(seq),
            }
        }
        if let Err(error) = store.promote(ready.clone()).await {
            let error = with_causes(&error);
            tracing::warn!(error, "cannot make waiting tasks ready, trying again");
            for seq in ready {
                waiting.insert(Due::After(seq, RETRY_AFTER), RETRY_AFTER);
            }
        }
    }
}
