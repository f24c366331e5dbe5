//! Links from finished tasks to their latest retries: `retried_by`.
//!
//! The writer stores the link with each retry. Older versions did not, so their history is backfilled in
//! the background, which reads every row; until then no list may filter by it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sqlx::{Row, SqliteConnection};

use super::columns::parse;
use super::statements::OverRows;
use super::transaction::Transaction;
use crate::store::change::{NewTask, UpkeepStep};
use crate::task::TaskId;

/// Pairs of a finished task and its latest retry.
pub(super) type Pairs = Vec<(TaskId, TaskId)>;

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
