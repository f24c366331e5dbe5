//! Retention: erases finished tasks after `--retention` and idempotency keys after a day, in steps
//! short enough not to hold up other changes.
//!
//! Tasks are stored in the order of submission. There is no index of ends, because it would cost each
//! task another write, and clocks jump, so old tasks need not come first. So the history is read once,
//! in stretches, and each stretch is read again when one of its tasks may have become old. That takes
//! a few bytes of memory per stretch, and no time of the writer unless something is old.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{Row, SqliteConnection};
use tokio::time::Instant;

use super::columns::parse;
use super::reads::ReadHalf;
use super::statements::OverRows;
use super::submissions::oldest_remembered;
use crate::store::change::{Change, EraseStep, Queue};
use crate::store::error::StoreError;
use crate::store::results::Erased;
use crate::task::{Timestamp, with_causes};

/// Maximum number of rows that one step reads or erases.
const ERASE_STEP: usize = 500;
/// Limits of the pause between two rounds, which is a tenth of the retention.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Maximum number of stretches per round without an old task. Rounds are a minute apart unless the
/// retention is short, so the first pass over 10,000,000 tasks takes three hours and 0.001 of a core.
const FRUITLESS_STEPS: usize = 100;
/// Number of erased tasks after which one is logged before the end of a round.
const ERASED_PER_LINE: usize = 100_000;
/// Maximum time until a stretch is read again. Bounds the effect of a clock jump.
const LONGEST_REST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Erases tasks, their tags and the ends of their logs. Idempotency keys have their own lifetime.
pub(super) const ERASE: &[OverRows] = &[
    OverRows {
        columns: &["seq"],
        sql: "DELETE FROM task_tags WHERE (key, value, task_seq) IN \
             (SELECT tag.key, tag.value, tasks.seq FROM tasks JOIN new USING (seq), \
                     json_each(tags) AS tag)",
    },
    OverRows {
        columns: &["seq"],
        sql: "DELETE FROM task_logs WHERE task_seq IN (SELECT seq FROM new)",
    },
    OverRows {
        columns: &["seq"],
        sql: "DELETE FROM tasks WHERE seq IN (SELECT seq FROM new) \
             AND +status IN ('completed', 'failed', 'cancelled') RETURNING status",
    },
];

/// Consecutive tasks, by the time of their end.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    /// Number of tasks.
    tasks: usize,
    /// The `seq` of the last task.
    last: i64,
    /// Tasks that ended before the cutoff, by `seq`.
    old: Vec<i64>,
    /// Earliest end of the other tasks, if any has ended.
    next_end: Option<Timestamp>,
}

impl ReadHalf {
    /// Reads up to [`ERASE_STEP`] tasks in a range of `seq`. A finished task never changes, so an old one
    /// is still old when it is erased.
    async fn stretch(
        &self,
        after: i64,
        up_to: i64,
        cutoff: Timestamp,
    ) -> Result<Stretch, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, completed_at FROM tasks WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
        )
        .bind(after)
        .bind(up_to)
        .bind(ERASE_STEP as i64)
        .fetch_all(self.readers.points())
        .await?;
        let mut stretch = Stretch { tasks: rows.len(), ..Stretch::default() };
        for row in &rows {
            stretch.last = row.try_get(0)?;
            let Some(end) = row.try_get::<Option<i64>, _>(1)?.map(Timestamp::from_micros) else {
                continue;
            };
            if end < cutoff {
                stretch.old.push(stretch.last);
            } else {
                stretch.next_end = Some(stretch.next_end.map_or(end, |next| next.min(end)));
            }
        }
        Ok(stretch)
    }
}

/// Erases the given tasks and up to [`ERASE_STEP`] idempotency keys.
pub(super) async fn erase(
    connection: &mut SqliteConnection,
    step: &EraseStep,
) -> sqlx::Result<Erased> {
    let keys = sqlx::query(
        "DELETE FROM idempotency_keys WHERE key IN \
         (SELECT key FROM idempotency_keys WHERE created_at < ?1 LIMIT ?2)",
    )
    .bind(step.keys_cutoff.as_micros())
    .bind(ERASE_STEP as i64)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    let mut statuses = Vec::new();
    if !step.tasks.is_empty() {
        for delete in ERASE {
            let delete = delete.with(&step.tasks, |row, seq| {
                row.bind(*seq);
            });
            for row in &delete.fetch_all(&mut *connection).await? {
                statuses.push(parse(row.try_get(0)?)?);
            }
        }
    }
    Ok(Erased { more_keys: keys == ERASE_STEP as u64, statuses })
}

/// Runs until the store is closed.
pub(super) async fn run(reads: &ReadHalf, queue: &Queue, retention: Option<Duration>) {
    let pause = retention.map_or(LONGEST_PAUSE, |retention| retention / 10);
    let pause = pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    let mut history = retention.map(History::new);
    loop {
        match sweep(reads, queue, history.as_mut()).await {
            Ok(()) => {}
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(error = with_causes(&error), "cannot erase old tasks"),
        }
        tokio::time::sleep(pause).await;
    }
}

async fn sweep(
    reads: &ReadHalf,
    queue: &Queue,
    history: Option<&mut History>,
) -> Result<(), StoreError> {
    while erase_step(queue, Vec::new()).await? {}
    let Some(history) = history else { return Ok(()) };
    let swept = history.sweep(reads, queue).await;
    history.report();
    swept
}

/// Has the writer erase tasks and keys. Returns whether there may be more old keys.
async fn erase_step(queue: &Queue, tasks: Vec<i64>) -> Result<bool, StoreError> {
    let keys_cutoff = Timestamp::from_micros(oldest_remembered());
    let step = EraseStep { tasks, keys_cutoff };
    queue.change(|answer| Change::Erase(step, answer)).await
}

/// Schedule of the stretches. Owned by the upkeep task, which alone reads and writes it.
struct History {
    retention: Duration,
    /// Stretches to read again: when (monotonic, because the wall clock may jump), after which `seq`,
    /// and up to which.
    known: BTreeSet<(Instant, i64, i64)>,
    /// Tasks after this `seq` are not yet in a stretch.
    known_up_to: i64,
    /// Number of erased tasks that are not yet logged.
    erased: usize,
}

impl History {
    fn new(retention: Duration) -> Self {
        Self { retention, known: BTreeSet::new(), known_up_to: 0, erased: 0 }
    }

    /// Reads the stretches whose time has come, then some new ones; erases the old tasks.
    async fn sweep(&mut self, reads: &ReadHalf, queue: &Queue) -> Result<(), StoreError> {
        let begin = Instant::now();
        let mut fruitless = 0;
        while fruitless < FRUITLESS_STEPS
            && let Some(&known) = self.known.first()
            && known.0 <= begin
        {
            let (_, after, last) = known;
            let stretch = self.erase_old(reads, queue, after, last).await?;
            self.known.remove(&known);
            self.remember(after, last, &stretch);
            fruitless += usize::from(stretch.old.is_empty());
        }
        let mut fruitless = 0;
        while fruitless < FRUITLESS_STEPS {
            let after = self.known_up_to;
            let stretch = self.erase_old(reads, queue, after, i64::MAX).await?;
            // The newest tasks do not fill a stretch, so each round reads them.
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
        reads: &ReadHalf,
        queue: &Queue,
        after: i64,
        up_to: i64,
    ) -> Result<Stretch, StoreError> {
        let age = i64::try_from(self.retention.as_micros()).unwrap_or(i64::MAX);
        let cutoff = Timestamp::now().as_micros().saturating_sub(age);
        let stretch = reads.stretch(after, up_to, Timestamp::from_micros(cutoff)).await?;
        if !stretch.old.is_empty() {
            erase_step(queue, stretch.old.clone()).await?;
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

    /// Schedules the next read of a stretch, unless it is empty now. An unfinished task cannot become
    /// old before a full retention has passed.
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
