//! Tasks that wait for a time. One timer serves all of them, on the monotonic clock.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use super::attempt::MAX_BACKOFF;
use crate::store::{Store, StoredDue};
use crate::task::{Timestamp, with_causes};

/// Maximum sleep before the wall clock is checked again.
const NAP: Duration = Duration::from_secs(60);

/// Maximum number of tasks made ready at once.
const PIECE: usize = 1000;

/// Pause before another try to make tasks ready.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Time at which a task becomes ready, by `seq`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// After a pause, unaffected by the wall clock.
    After(i64, Duration),
    /// When the wall clock reaches the time that the client requested.
    At(i64, Timestamp),
    /// Never: the task was cancelled, whether or not it waited for a time.
    Never(i64),
}

impl Due {
    /// Due time of a stored task. The wall clock may have jumped since a backoff was stored, so none waits
    /// longer than the maximum backoff.
    fn stored(StoredDue { seq, due_at, run_at }: StoredDue) -> Self {
        if run_at == Some(due_at) {
            return Self::At(seq, due_at);
        }
        Self::After(seq, left(due_at).min(MAX_BACKOFF))
    }

    fn seq(self) -> i64 {
        match self {
            Self::After(seq, _) | Self::At(seq, _) | Self::Never(seq) => seq,
        }
    }

    /// Sleep before the next check; `None` if there is none.
    fn nap(self) -> Option<Duration> {
        match self {
            Self::After(_, pause) => Some(pause),
            Self::At(_, time) => Some(left(time).min(NAP)),
            Self::Never(_) => None,
        }
    }
}

fn left(time: Timestamp) -> Duration {
    let micros = time.as_micros().saturating_sub(Timestamp::now().as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Waiting tasks, by the time of the next check.
#[derive(Default)]
struct Waiting {
    queue: DelayQueue<Due>,
    keys: HashMap<i64, Key>,
}

impl Waiting {
    fn insert(&mut self, due: Due) {
        if let Some(known) = self.keys.remove(&due.seq()) {
            self.queue.try_remove(&known);
        }
        if let Some(nap) = due.nap() {
            self.keys.insert(due.seq(), self.queue.insert(due, nap));
        }
    }

    /// Resolves with the next task whose sleep is over; never if none waits.
    async fn next(&mut self) -> Due {
        match self.queue.next().await {
            Some(expired) => {
                let due = expired.into_inner();
                self.keys.remove(&due.seq());
                due
            }
            None => std::future::pending().await,
        }
    }
}

/// Starts the timer for stored tasks and for those that the fold sends. It ends when the sender is
/// dropped.
pub(super) fn start(store: Store, stored: Vec<StoredDue>) -> mpsc::UnboundedSender<Due> {
    let (due, incoming) = mpsc::unbounded_channel();
    let mut waiting = Waiting::default();
    stored.into_iter().for_each(|stored| waiting.insert(Due::stored(stored)));
    tokio::spawn(promote(store, waiting, incoming));
    due
}

async fn promote(store: Store, mut waiting: Waiting, mut incoming: mpsc::UnboundedReceiver<Due>) {
    loop {
        let first = tokio::select! {
            due = incoming.recv() => match due {
                Some(due) => {
                    waiting.insert(due);
                    continue;
                }
                None => return,
            },
            first = waiting.next() => first,
        };
        // Tasks that are due together are made ready together.
        let mut expired = vec![first];
        while expired.len() < PIECE
            && let Some(next) = waiting.next().now_or_never()
        {
            expired.push(next);
        }
        let (early, ready): (Vec<_>, Vec<_>) = expired
            .into_iter()
            .partition(|due| matches!(due, Due::At(_, time) if !left(*time).is_zero()));
        early.into_iter().for_each(|due| waiting.insert(due));
        if ready.is_empty() {
            continue;
        }
        if let Err(error) = store.promote(ready.iter().map(|due| due.seq()).collect()).await {
            let error = with_causes(&error);
            tracing::warn!(error, "cannot make waiting tasks ready, retrying");
            ready.iter().for_each(|due| waiting.insert(Due::After(due.seq(), RETRY_AFTER)));
        }
    }
}
