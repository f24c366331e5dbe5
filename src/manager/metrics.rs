//! Prometheus metrics of tasks and the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::TaskManager;
use crate::store::StoreError;
use crate::task::{TaskInfo, TaskStatus, Timestamp};

/// Counters and timers. Those updated once per task are looked up once for each type.
#[derive(Debug)]
pub(super) struct Metrics {
    /// Types are added as they are declared, and never removed.
    of_type: RwLock<HashMap<&'static str, Arc<TypeMetrics>>>,
    transitions: Family<Labels<2>, Counter>,
    waits: Family<Labels<1>, Histogram, fn() -> Histogram>,
    runs: Family<Labels<1>, Histogram, fn() -> Histogram>,
    commit_changes: Histogram,
    commit_seconds: Histogram,
    tasks: Family<Labels<1>, Gauge>,
    oldest_pending: Gauge<f64, AtomicU64>,
    log_size: Gauge,
    streams: Gauge,
    abandoned_threads: Gauge,
}

/// Metrics of one task type.
#[derive(Debug)]
struct TypeMetrics {
    submitted: Counter,
    started: Counter,
    completed: Counter,
    failed: Counter,
    cancelled: Counter,
    returned: Counter,
    wait: Histogram,
    run: Histogram,
}

/// Names and values of labels.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Histogram from a millisecond to nine hours.
fn long_times() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 13))
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            of_type: RwLock::default(),
            transitions: Family::default(),
            waits: Family::new_with_constructor(long_times),
            runs: Family::new_with_constructor(long_times),
            commit_changes: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            commit_seconds: Histogram::new(exponential_buckets(0.000_125, 2.0, 14)),
            tasks: Family::default(),
            oldest_pending: Gauge::default(),
            log_size: Gauge::default(),
            streams: Gauge::default(),
            abandoned_threads: Gauge::default(),
        }
    }

    /// Prepares the metrics of these types.
    pub(super) fn add_types(&self, types: &[&'static str]) {
        let mut known = self.of_type.write();
        for &task_type in types {
            let of_type = ("task_type", task_type);
            known.entry(task_type).or_insert_with(|| {
                let counter =
                    |name| self.transitions.get_or_create_owned(&[of_type, ("transition", name)]);
                Arc::new(TypeMetrics {
                    submitted: counter("submitted"),
                    started: counter("started"),
                    completed: counter("completed"),
                    failed: counter("failed"),
                    cancelled: counter("cancelled"),
                    returned: counter("returned"),
                    wait: self.waits.get_or_create_owned(&[of_type]),
                    run: self.runs.get_or_create_owned(&[of_type]),
                })
            });
        }
    }

    fn of_type(&self, task_type: &str) -> Option<Arc<TypeMetrics>> {
        self.of_type.read().get(task_type).cloned()
    }

    /// Counts a stored task.
    pub(super) fn submitted(&self, task_type: &str) {
        if let Some(metrics) = self.of_type(task_type) {
            metrics.submitted.inc();
        }
    }

    /// Counts a claimed task.
    pub(super) fn started(&self, info: &TaskInfo) {
        if let Some(metrics) = self.of_type(&info.task_type) {
            metrics.started.inc();
            let ready = info.run_at.map_or(info.created_at, |run_at| run_at.max(info.created_at));
            metrics.wait.observe(seconds(ready, info.started_at));
        }
    }

    /// Counts the end of an attempt, or the cancellation of a pending task.
    pub(super) fn ended(
        &self,
        task_type: &str,
        began: Option<Timestamp>,
        to: TaskStatus,
        at: Timestamp,
    ) {
        let Some(metrics) = self.of_type(task_type) else { return };
        match to {
            TaskStatus::Completed => metrics.completed.inc(),
            TaskStatus::Failed => metrics.failed.inc(),
            TaskStatus::Cancelled => metrics.cancelled.inc(),
            TaskStatus::Pending | TaskStatus::Running => metrics.returned.inc(),
        };
        if let Some(began) = began {
            metrics.run.observe(seconds(began, Some(at)));
        }
    }

    /// Observes a commit.
    pub(super) fn wrote(&self, changes: usize, took: Duration) {
        self.commit_changes.observe(changes as f64);
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// Numbers of submitted, completed, failed and cancelled tasks since the start.
    pub(super) fn totals(&self) -> [u64; 4] {
        let sum = |count: fn(&TypeMetrics) -> &Counter| {
            self.of_type.read().values().map(|metrics| count(metrics).get()).sum()
        };
        [
            sum(|metrics| &metrics.submitted),
            sum(|metrics| &metrics.completed),
            sum(|metrics| &metrics.failed),
            sum(|metrics| &metrics.cancelled),
        ]
    }
}

/// Seconds between two times; 0 if the clock was set back in between.
fn seconds(from: Timestamp, to: Option<Timestamp>) -> f64 {
    let micros = to.map_or(0, |to| to.as_micros() - from.as_micros());
    micros.max(0) as f64 / 1e6
}

impl TaskManager {
    /// Registers the metrics of tasks and the database.
    pub(crate) fn register_metrics(&self, registry: &mut Registry) {
        let metrics = &self.inner.metrics;
        registry.register(
            "task_transitions",
            "What happened to tasks: submitted, started, completed, failed, cancelled, or returned to pending for another attempt",
            metrics.transitions.clone(),
        );
        registry.register("tasks", "Stored tasks by status", metrics.tasks.clone());
        registry.register_with_unit(
            "oldest_pending",
            "Age of the task that has been pending for longest, 0 if none is",
            Unit::Seconds,
            metrics.oldest_pending.clone(),
        );
        registry.register_with_unit(
            "task_wait",
            "From the submission of a task, or the time that it was scheduled for, to its latest start",
            Unit::Seconds,
            metrics.waits.clone(),
        );
        registry.register_with_unit(
            "task_run",
            "From the start of an attempt to its end",
            Unit::Seconds,
            metrics.runs.clone(),
        );
        registry.register(
            "commit_changes",
            "Changes in one transaction",
            metrics.commit_changes.clone(),
        );
        registry.register_with_unit(
            "commit",
            "How long one transaction takes, with the disk",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        registry.register_with_unit(
            "write_ahead_log",
            "Size of the write-ahead log of the database",
            Unit::Bytes,
            metrics.log_size.clone(),
        );
        registry.register("event_streams", "Open event streams", metrics.streams.clone());
        registry.register(
            "abandoned_threads",
            "Threads that still work for an attempt that was given up",
            metrics.abandoned_threads.clone(),
        );
    }

    /// Updates the gauges, which are only set on request.
    pub(crate) async fn refresh_metrics(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        let metrics = &inner.metrics;
        for status in TaskStatus::ALL {
            let label = [("status", status.name())];
            let count = i64::try_from(inner.store.reads.counts().get(*status)).unwrap_or(i64::MAX);
            metrics.tasks.get_or_create(&label).set(count);
        }
        let oldest = inner.store.reads.oldest_pending().await?;
        metrics.oldest_pending.set(oldest.map_or(0.0, |at| seconds(at, Some(Timestamp::now()))));
        metrics.log_size.set(inner.store.reads.log_size() as i64);
        metrics.streams.set(inner.events.streams() as i64);
        metrics.abandoned_threads.set(inner.cpu_slots.abandoned() as i64);
        Ok(())
    }
}
