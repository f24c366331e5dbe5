//! How many tasks there are, known without counting.

use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{Row, SqliteConnection};

use super::transitions::parse;
use crate::task::TaskStatus;

/// How many stored tasks have each status. Counted once, and then kept in step with what is
/// committed.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; TaskStatus::ALL.len()]);

impl Counts {
    /// Counts, along an index that has nothing but types and statuses.
    pub(super) async fn read(connection: &mut SqliteConnection) -> sqlx::Result<Self> {
        let counts = Self::default();
        let count = "SELECT status, count(*) FROM tasks GROUP BY task_type, status";
        for row in &sqlx::query(count).fetch_all(connection).await? {
            counts.add(parse(row.try_get(0)?)?, row.try_get::<i64, _>(1)?.unsigned_abs());
        }
        Ok(counts)
    }

    /// Tasks with this status.
    pub(crate) fn get(&self, status: TaskStatus) -> u64 {
        self.0[status as usize].load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, status: TaskStatus, tasks: u64) {
        self.0[status as usize].fetch_add(tasks, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, status: TaskStatus) {
        self.0[status as usize].fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn change(&self, from: TaskStatus, to: TaskStatus) {
        self.add(to, 1);
        self.remove(from);
    }
}
