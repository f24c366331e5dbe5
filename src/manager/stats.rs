//! Activity of the last hour, by minute.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::TaskManager;
use super::metrics::Metrics;
use crate::task::{TaskStatus, Timestamp};

/// Length of an entry.
const INTERVAL: Duration = Duration::from_secs(60);
/// Number of entries that are kept.
const KEPT: usize = 60;

/// Totals since the start, at some time.
#[derive(Clone, Copy, Debug)]
struct Totals {
    at: Timestamp,
    /// Submitted, completed, failed, cancelled.
    counts: [u64; 4],
}

/// Totals at the end of each of the last minutes. Appended by a ticker, read by requests.
#[derive(Debug)]
pub(super) struct History(Mutex<VecDeque<Totals>>);

impl History {
    /// Starts the ticker, which records each minute until the server starts to drain.
    pub(super) fn start(metrics: Arc<Metrics>, draining: CancellationToken) -> Arc<Self> {
        let begin = Totals { at: Timestamp::now(), counts: [0; 4] };
        let history = Arc::new(Self(Mutex::new(VecDeque::from([begin]))));
        let kept = Arc::clone(&history);
        let mut minutes = interval(INTERVAL);
        minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = async move {
            minutes.tick().await;
            loop {
                minutes.tick().await;
                let mut history = kept.0.lock();
                history.push_back(totals(&metrics));
                if history.len() > KEPT {
                    history.pop_front();
                }
            }
        };
        tokio::spawn(async move { draining.run_until_cancelled(work).await });
        history
    }

    /// Activity in each minute, including the current one, oldest first.
    fn minutes(&self, metrics: &Metrics) -> Vec<Minute> {
        let history = self.0.lock();
        // Under the lock, so that these totals are the latest.
        let now = totals(metrics);
        let ends = history.iter().skip(1).chain([&now]);
        let minutes = history.iter().zip(ends).map(|(begin, end)| {
            let [submitted, completed, failed, cancelled] =
                std::array::from_fn(|index| end.counts[index] - begin.counts[index]);
            Minute { at: begin.at, submitted, completed, failed, cancelled }
        });
        minutes.collect()
    }
}

/// Activity in one minute.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MinuteView)]
pub(crate) struct Minute {
    /// Start of the minute.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Submitted tasks.
    submitted: u64,
    /// Completed tasks.
    completed: u64,
    /// Failed tasks.
    failed: u64,
    /// Cancelled tasks.
    cancelled: u64,
}

fn totals(metrics: &Metrics) -> Totals {
    Totals { at: Timestamp::now(), counts: metrics.totals() }
}

impl TaskManager {
    /// Numbers of tasks, by status.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (TaskStatus, u64)> {
        let counts = self.inner.store.reads.counts();
        TaskStatus::ALL.iter().map(|&status| (status, counts.get(status)))
    }

    /// Activity in each minute of the last hour, or since the start.
    pub(crate) fn last_hour(&self) -> Vec<Minute> {
        self.inner.history.minutes(&self.inner.metrics)
    }
}
