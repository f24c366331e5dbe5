//! Number of tasks of each status, known without counting.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use super::transitions::parse;
use crate::task::TaskStatus;

/// How long the start waits for the finished tasks to be counted: enough for a million or two.
const COUNT_WAIT: Duration = Duration::from_millis(250);

/// Number of stored tasks of each status. Counted once at the start, then changed by the writer with each
/// commit, and read by everyone.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicI64; TaskStatus::ALL.len()]);

impl Counts {
    /// Counts, along an index that has nothing but types and statuses. Finished tasks beyond some millions
    /// are added a moment later: the connection sees the table as it is now, so what the writer does
    /// meanwhile is added to that.
    pub(super) async fn read(mut connection: SqliteConnection) -> sqlx::Result<Arc<Self>> {
        let counts = Arc::new(Self::default());
        sqlx::query("BEGIN").execute(&mut connection).await?;
        for status in TaskStatus::ALL.iter().filter(|status| !status.is_final()) {
            let count = "SELECT count(*) FROM tasks \
                         WHERE task_type IN (SELECT name FROM task_types) AND status = ?1";
            let row = sqlx::query(count).bind(status.name()).fetch_one(&mut connection).await?;
            counts.add(*status, row.try_get(0)?);
        }
        let counting = tokio::spawn(Arc::clone(&counts).add_finished(connection));
        // What it came to is in the counts, or in the log.
        let _ = tokio::time::timeout(COUNT_WAIT, counting).await;
        Ok(counts)
    }

    async fn add_finished(self: Arc<Self>, mut connection: SqliteConnection) {
        if let Err(error) = self.try_add_finished(&mut connection).await {
            tracing::warn!(%error, "cannot count the finished tasks");
        }
    }

    async fn try_add_finished(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let count = "SELECT status, count(*) FROM tasks GROUP BY task_type, status";
        for row in &sqlx::query(count).fetch_all(connection).await? {
            let status: TaskStatus = parse(row.try_get(0)?)?;
            if status.is_final() {
                self.add(status, row.try_get(1)?);
            }
        }
        Ok(())
    }

    /// Tasks with this status.
    pub(crate) fn get(&self, status: TaskStatus) -> u64 {
        // Below zero while tasks are erased that were not counted yet.
        u64::try_from(self.0[status as usize].load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(super) fn add(&self, status: TaskStatus, tasks: i64) {
        self.0[status as usize].fetch_add(tasks, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, status: TaskStatus) {
        self.add(status, -1);
    }

    pub(super) fn change(&self, from: TaskStatus, to: TaskStatus) {
        self.add(to, 1);
        self.remove(from);
    }
}
