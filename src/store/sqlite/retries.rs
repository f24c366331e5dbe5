//! Links from finished tasks to their latest retries: `retried_by`.
//!
//! The writer stores the link with each retry. Older versions did not, so their history is backfilled in
//! the background, which reads every row; until then no list may filter by it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use super::columns::parse;
use super::reads::ReadHalf;
use super::statements::OverRows;
use super::transaction::Transaction;
use crate::store::change::{Change, NewTask, Queue, UpkeepStep};
use crate::store::error::StoreError;
use crate::task::{TaskId, with_causes};

/// Number of tasks that one step of the backfill reads: a few milliseconds.
const STEP: i64 = 4096;
/// Pause between two steps, so that clients' lists go first.
const STEP_PAUSE: Duration = Duration::from_millis(5);
/// Pause before a failed step is repeated.
const PAUSE: Duration = Duration::from_secs(1);

/// Pairs of a finished task and its latest retry.
type Pairs = Vec<(TaskId, TaskId)>;

/// Reads whether `retried_by` is known for all tasks.
pub(super) async fn are_known(connection: &mut SqliteConnection) -> sqlx::Result<Arc<AtomicBool>> {
    let open = sqlx::query("SELECT 1 FROM backfills WHERE name = 'retried_by'");
    let known = open.fetch_optional(connection).await?.is_none();
    Ok(Arc::new(AtomicBool::new(known)))
}

pub(super) const RETRIED: OverRows = OverRows {
    columns: &["retried"],
    sql: "SELECT id FROM new CROSS JOIN tasks ON tasks.id = new.retried WHERE retried_by IS NOT NULL",
};

/// Returns the finished tasks that already have a retry, among those that only a first one may repeat.
pub(super) async fn retried(
    transaction: &mut Transaction<'_>,
    tasks: &[&NewTask],
) -> sqlx::Result<HashSet<TaskId>> {
    let asked = tasks.iter().filter_map(|task| task.retry.filter(|retry| retry.only_first));
    let asked: Vec<_> = asked.collect();
    let rows = transaction.read(&RETRIED, &asked, |row, retry| {
        row.bind(retry.of.to_string());
    });
    rows.await?.iter().map(|row| parse(row.try_get(0)?)).collect()
}

pub(super) const NOTE: OverRows = OverRows {
    columns: &["retried", "retry"],
    sql: "UPDATE tasks SET retried_by = new.retry FROM new WHERE tasks.id = new.retried",
};

/// Stores the links of new tasks that are retries.
pub(super) fn note(transaction: &mut Transaction<'_>, stored: &[&NewTask]) {
    let retries = stored.iter().filter_map(|task| Some((task.retry?.of, task.id)));
    // The last retry of a task wins.
    let latest: HashMap<_, _> = retries.collect();
    write(transaction, &NOTE, &latest.into_iter().collect());
}

// The writer may have stored a later retry meanwhile.
pub(super) const NOTE_FOUND: OverRows = OverRows {
    columns: &["retried", "retry"],
    sql: "UPDATE tasks SET retried_by = new.retry FROM new \
          WHERE tasks.id = new.retried AND +retried_by IS NULL",
};

/// Stores links that the backfill found.
pub(super) async fn store(
    transaction: &mut Transaction<'_>,
    steps: &[&UpkeepStep],
) -> sqlx::Result<()> {
    for step in steps {
        write(transaction, &NOTE_FOUND, &step.retries);
        if step.retries_known {
            let done = sqlx::query("DELETE FROM backfills WHERE name = 'retried_by'");
            done.execute(transaction.connection().await?).await?;
        }
    }
    Ok(())
}

fn write(transaction: &mut Transaction<'_>, statement: &OverRows, pairs: &Pairs) {
    transaction.write(statement, pairs, |row, (retried, retry)| {
        row.bind(retried.to_string()).bind(retry.to_string());
    });
}

/// Backfills `retried_by`, if it is not yet known for all tasks.
pub(super) async fn find(reads: &ReadHalf, queue: &Queue) {
    let mut below = i64::MAX;
    while !reads.retries_known.load(Ordering::Acquire) {
        match search(reads, queue, below).await {
            Ok(Some(next)) => {
                below = next;
                tokio::time::sleep(STEP_PAUSE).await;
            }
            Ok(None) => reads.retries_known.store(true, Ordering::Release),
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "cannot backfill retries");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Backfills one step below this `seq`. Returns the start of the next one.
async fn search(reads: &ReadHalf, queue: &Queue, below: i64) -> Result<Option<i64>, StoreError> {
    let mut scan = reads.readers.scan().await?;
    let found = read(scan.connection(), below).await;
    scan.finish();
    let (retries, next) = found?;
    let retries_known = next.is_none();
    if !retries.is_empty() || retries_known {
        let step = UpkeepStep { retries, retries_known, ..UpkeepStep::default() };
        queue.change(|answer| Change::Upkeep(step, answer)).await?;
    }
    Ok(next)
}

async fn read(connection: &mut SqliteConnection, below: i64) -> sqlx::Result<(Pairs, Option<i64>)> {
    let latest = "SELECT max(seq) FROM tasks WHERE seq < ?1";
    let latest = sqlx::query_scalar::<_, Option<i64>>(latest).bind(below);
    let Some(latest) = latest.fetch_one(&mut *connection).await? else {
        return Ok((Vec::new(), None));
    };
    let first = latest - STEP + 1;
    let retries = "SELECT retry_of, id FROM tasks \
         WHERE seq BETWEEN ?1 AND ?2 AND retry_of IS NOT NULL ORDER BY seq DESC";
    let rows = sqlx::query(retries).bind(first).bind(latest).fetch_all(connection).await?;
    let mut seen = HashSet::new();
    let mut pairs = Vec::with_capacity(rows.len());
    for row in &rows {
        let (retried, retry) = (parse(row.try_get(0)?)?, parse(row.try_get(1)?)?);
        // The latest retry comes first and wins.
        if seen.insert(retried) {
            pairs.push((retried, retry));
        }
    }
    Ok((pairs, Some(first)))
}
