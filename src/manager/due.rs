//! Tasks that wait for a time: one timer for all of them, on the monotonic clock.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use super::attempt::MAX_BACKOFF;
use crate::store::{Store, StoredDue};
use crate::task::{Timestamp, with_causes};

/// Longest sleep before the clock is looked at again.
const NAP: Duration = Duration::from_secs(60);

/// Upper limit of the tasks that are made ready at once.
const PIECE: usize = 1000;

/// Pause before tasks are made ready again after the database refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Time at which a task, named by its `seq`, becomes ready.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// After a pause, whatever the wall clock does meanwhile.
    After(i64, Duration),
    /// When the wall clock shows the time that a client asked for.
    At(i64, Timestamp),
    /// Not any more: the task was cancelled, if it waited for a time at all.
    Never(i64),
}

impl Due {
    /// For a stored time. That of a retry was written by a wall clock that may have jumped since, so no
    /// retry waits longer than the longest pause.
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

    /// Sleep before the next look; `None` for no more looks.
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

/// The tasks that wait, by the time to look at them.
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

    /// Waits for the next one; for ever if there is none.
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

/// Makes tasks ready when their time has come: those that are stored, and those that are sent. Ends when
/// nothing can be sent any more.
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
        // Those whose time has come together are made ready together.
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
            tracing::warn!(error, "cannot make waiting tasks ready, trying again");
            ready.iter().for_each(|due| waiting.insert(Due::After(due.seq(), RETRY_AFTER)));
        }
    }
}
