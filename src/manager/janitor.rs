//! Erases what is old while the server works: finished tasks after `--retention`, idempotency keys
//! after a day.
//!
//! Tasks are stored in the order of submission. No index finds the old ones, because it would cost
//! each task another write. And their times follow no order that could be relied on: a clock that was
//! ahead stamps tasks that stay young for years, with old ones behind them. So the history is read
//! once, in stretches, and each stretch is read again when something in it may have become old. That
//! takes a few bytes of memory per stretch, and nothing of the writer's time unless something is old.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{ERASE_STEP, EraseStep, KEY_LIFETIME, Store, StoreError, Stretch};
use crate::task::{Timestamp, with_causes};

/// Looks often enough that nothing outlives its time by much more than a tenth.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Upper limit of the stretches of one round in which nothing is old. Rounds are a minute apart unless
/// the retention is short, so the first reading of 10,000,000 tasks takes three hours and a thousandth
/// of a core.
const FRUITLESS_STEPS: usize = 100;
/// Erased tasks that are reported in one line of the log, at the end of a round or before.
const ERASED_PER_LINE: usize = 100_000;
/// Upper limit of the time until a stretch is read again, so that a clock that jumped is forgiven.
const LONGEST_REST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Works until the store is closed.
pub(super) async fn run(store: Store, retention: Option<Duration>) {
    let pause = retention.map_or(LONGEST_PAUSE, |retention| retention / 10);
    let pause = pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    let mut history = retention.map(History::new);
    loop {
        match sweep(&store, history.as_mut()).await {
            Ok(()) => {}
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(error = with_causes(&error), "cannot erase old tasks"),
        }
        tokio::time::sleep(pause).await;
    }
}

async fn sweep(store: &Store, history: Option<&mut History>) -> Result<(), StoreError> {
    while store.erase(step(Vec::new())).await? {}
    match history {
        Some(history) => {
            let swept = history.sweep(store).await;
            history.report();
            swept
        }
        None => Ok(()),
    }
}

fn step(tasks: Vec<i64>) -> EraseStep {
    let now = Timestamp::now().as_micros();
    EraseStep { tasks, keys_cutoff: Timestamp::from_micros(now - KEY_LIFETIME) }
}

/// What is known of the stored tasks.
struct History {
    retention: Duration,
    /// Stretches that were read: when to read them again, what they begin after, and their last task.
    /// The time is monotonic, because the wall clock may jump.
    known: BTreeSet<(Instant, i64, i64)>,
    /// Tasks after this `seq` are in no stretch yet.
    known_up_to: i64,
    /// Tasks that were erased and are not in the log yet.
    erased: usize,
}

impl History {
    fn new(retention: Duration) -> Self {
        Self { retention, known: BTreeSet::new(), known_up_to: 0, erased: 0 }
    }

    /// Reads the stretches whose time has come, then some that are not known yet; erases what is old.
    async fn sweep(&mut self, store: &Store) -> Result<(), StoreError> {
        let begin = Instant::now();
        let mut fruitless = 0;
        while fruitless < FRUITLESS_STEPS
            && let Some(&known) = self.known.first()
            && known.0 <= begin
        {
            let (_, after, last) = known;
            let stretch = self.erase_old(store, after, last).await?;
            self.known.remove(&known);
            self.remember(after, last, &stretch);
            fruitless += usize::from(stretch.old.is_empty());
        }
        let mut fruitless = 0;
        while fruitless < FRUITLESS_STEPS {
            let after = self.known_up_to;
            let stretch = self.erase_old(store, after, i64::MAX).await?;
            // The newest tasks do not fill a stretch yet, so each round reads them.
            if stretch.tasks < ERASE_STEP {
                break;
            }
            self.known_up_to = stretch.last;
            self.remember(after, stretch.last, &stretch);
            fruitless += usize::from(stretch.old.is_empty());
        }
        Ok(())
    }

    async fn erase_old(
        &mut self,
        store: &Store,
        after: i64,
        up_to: i64,
    ) -> Result<Stretch, StoreError> {
        let age = i64::try_from(self.retention.as_micros()).unwrap_or(i64::MAX);
        let cutoff = Timestamp::now().as_micros().saturating_sub(age);
        let stretch = store.stretch(after, up_to, Timestamp::from_micros(cutoff)).await?;
        if !stretch.old.is_empty() {
            store.erase(step(stretch.old.clone())).await?;
            self.erased += stretch.old.len();
            if self.erased >= ERASED_PER_LINE {
                self.report();
            }
        }
        Ok(stretch)
    }

    fn report(&mut self) {
        match std::mem::take(&mut self.erased) {
            0 => {}
            tasks => tracing::info!(tasks, retention = ?self.retention, "erased old tasks"),
        }
    }

    /// Notes when to read this stretch again, unless nothing is left of it. What is unfinished cannot
    /// become old before the retention is over.
    fn remember(&mut self, after: i64, last: i64, stretch: &Stretch) {
        if stretch.tasks == stretch.old.len() {
            return;
        }
        let age = |end: Timestamp| {
            let micros = Timestamp::now().as_micros().saturating_sub(end.as_micros());
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        };
        let rest = self.retention.saturating_sub(stretch.next_end.map_or(Duration::ZERO, age));
        self.known.insert((Instant::now() + rest.min(LONGEST_REST), after, last));
    }
}
