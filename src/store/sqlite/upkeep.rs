//! Upkeep: the background work on the history, beside the changes of clients. Records submission times,
//! backfills retries, and erases what is old; see [`retention`].

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join3;
use sqlx::{Row, SqliteConnection};

use super::columns::parse;
use super::reads::ReadHalf;
use super::retention;
use super::retries::Pairs;
use super::times::BLOCK;
use crate::store::change::{BlockTimes, Change, Queue, UpkeepStep};
use crate::store::error::StoreError;
use crate::task::with_causes;

/// Number of tasks that one step of the backfill reads: a few milliseconds.
const BACKFILL_STEP: i64 = 4096;
/// Pause between two steps, so that clients' lists go first.
const STEP_PAUSE: Duration = Duration::from_millis(5);
/// Pause when there is nothing to do, and before a failed step is repeated.
const PAUSE: Duration = Duration::from_secs(1);

/// Upkeep; see [`Store::upkeep`](crate::store::Store::upkeep).
pub(in crate::store) async fn upkeep(reads: ReadHalf, queue: Queue, retention: Option<Duration>) {
    let erase = retention::run(&reads, &queue, retention);
    join3(record_times(&reads, &queue), backfill_retries(&reads, &queue), erase).await;
}

/// Records the times of each block once it is full, and of full blocks that an older version or a crash
/// left unrecorded. Runs until the store is closed.
async fn record_times(reads: &ReadHalf, queue: &Queue) {
    // Earlier blocks are recorded, empty, or too slow to read.
    let mut begin = 0;
    let mut has_index = true;
    loop {
        let mut step = record_gap(reads, queue, begin).await;
        if has_index && matches!(step, Ok(None)) {
            step = drop_index(reads, queue).await.map(|()| None);
            has_index = step.is_err();
        }
        match step {
            Ok(Some(next)) => {
                begin = next;
                tokio::time::sleep(STEP_PAUSE).await;
                continue;
            }
            Ok(None) | Err(StoreError::Overloaded) => {}
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "cannot record submission times");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Records the beginning of the first gap. Returns the next block, or `None` if there is no gap.
async fn record_gap(
    reads: &ReadHalf,
    queue: &Queue,
    begin: i64,
) -> Result<Option<i64>, StoreError> {
    let full = reads.next_seq.load(Ordering::Relaxed) / BLOCK;
    let Some(gap) = reads.times.gap(begin, full) else { return Ok(None) };
    let mut scan = reads.readers.scan().await?;
    let oldest = sqlx::query("SELECT min(seq) FROM tasks").fetch_one(scan.connection()).await?;
    // If there are no tasks, all full blocks are empty.
    let first_block = oldest.try_get::<Option<i64>, _>(0)?.map_or(full, |oldest| oldest / BLOCK);
    if gap.end <= first_block {
        scan.finish();
        return Ok(Some(first_block));
    }
    let blocks = read_blocks(scan.connection(), gap.clone()).await.map_err(StoreError::from);
    scan.finish();
    let blocks = match blocks {
        // Left unrecorded, so lists check each of their rows.
        Err(StoreError::Overloaded) => return Ok(Some(gap.end)),
        blocks => blocks?,
    };
    let step = UpkeepStep { blocks, first_block, ..UpkeepStep::default() };
    queue.change(|answer| Change::Upkeep(step, answer)).await?;
    Ok(Some(gap.end))
}

async fn read_blocks(
    connection: &mut SqliteConnection,
    blocks: Range<i64>,
) -> sqlx::Result<Vec<BlockTimes>> {
    let mut times = Vec::new();
    for block in blocks {
        let ends =
            "SELECT min(created_at), max(created_at) FROM tasks WHERE seq >= ?1 AND seq < ?2";
        let ends = sqlx::query(ends).bind(block * BLOCK).bind((block + 1) * BLOCK);
        let row = ends.fetch_one(&mut *connection).await?;
        // An empty block has no times.
        if let (Some(earliest), Some(latest)) = (row.try_get(0)?, row.try_get(1)?) {
            times.push(BlockTimes { block, earliest, latest });
        }
    }
    Ok(times)
}

/// Drops the index by time of older versions, if it exists.
async fn drop_index(reads: &ReadHalf, queue: &Queue) -> Result<(), StoreError> {
    let index = "SELECT 1 FROM sqlite_schema WHERE name = 'tasks_by_time'";
    if sqlx::query(index).fetch_optional(reads.readers.points()).await?.is_none() {
        return Ok(());
    }
    let step = UpkeepStep { drop_index: true, ..UpkeepStep::default() };
    queue.change(|answer| Change::Upkeep(step, answer)).await
}

/// Backfills `retried_by`, if it is not yet known for all tasks.
pub(super) async fn backfill_retries(reads: &ReadHalf, queue: &Queue) {
    let mut below = i64::MAX;
    while !reads.retries_known.load(Ordering::Acquire) {
        match backfill_step(reads, queue, below).await {
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
async fn backfill_step(
    reads: &ReadHalf,
    queue: &Queue,
    below: i64,
) -> Result<Option<i64>, StoreError> {
    let mut scan = reads.readers.scan().await?;
    let found = read_retries(scan.connection(), below).await;
    scan.finish();
    let (retries, next) = found?;
    let retries_known = next.is_none();
    if !retries.is_empty() || retries_known {
        let step = UpkeepStep { retries, retries_known, ..UpkeepStep::default() };
        queue.change(|answer| Change::Upkeep(step, answer)).await?;
    }
    Ok(next)
}

async fn read_retries(
    connection: &mut SqliteConnection,
    below: i64,
) -> sqlx::Result<(Pairs, Option<i64>)> {
    let latest = "SELECT max(seq) FROM tasks WHERE seq < ?1";
    let latest = sqlx::query_scalar::<_, Option<i64>>(latest).bind(below);
    let Some(latest) = latest.fetch_one(&mut *connection).await? else {
        return Ok((Vec::new(), None));
    };
    let first = latest - BACKFILL_STEP + 1;
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
