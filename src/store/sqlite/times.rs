//! Sparse index of submission times: the earliest and latest one of each block of [`BLOCK`] tasks.
//!
//! A list with a time filter reads only the blocks that may match. The index has a row for every
//! thousand tasks, where an ordinary one has an entry for each. Clocks jump, so the times of neighbouring
//! blocks may overlap and need not be in order.

use std::collections::BTreeMap;
use std::ops::Range;

use parking_lot::RwLock;
use sqlx::{Row, SqliteConnection};

use super::statements::OverRows;
use super::transaction::Transaction;
use crate::store::change::{BlockTimes, UpkeepStep};
use crate::store::filter::ListFilter;

/// Size of a block: the tasks with the same `seq / BLOCK`.
pub(super) const BLOCK: i64 = 1024;
/// Maximum number of ranges per page. Only a clock that jumps back and forth causes more than a few.
const MAX_RANGES: usize = 32;
/// Maximum number of blocks recorded at once: about as many rows as a page may examine.
const STEP: i64 = 16;

/// Recorded blocks. Written by the writer after each commit that records or erases some, read by lists
/// and by the upkeep. A missing block may hold any time: it is not full, or not yet recorded.
#[derive(Debug, Default)]
pub(super) struct Times(RwLock<BTreeMap<i64, (i64, i64)>>);

impl Times {
    pub(super) async fn read(connection: &mut SqliteConnection) -> sqlx::Result<Self> {
        let times = Self::default();
        let rows = sqlx::query("SELECT block, earliest, latest FROM submission_times")
            .fetch_all(connection)
            .await?;
        for row in &rows {
            let [block, earliest, latest] = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
            times.record(&[BlockTimes { block, earliest, latest }]);
        }
        Ok(times)
    }

    /// Adds recorded blocks.
    pub(super) fn record(&self, blocks: &[BlockTimes]) {
        let mut known = self.0.write();
        known.extend(blocks.iter().map(|times| (times.block, (times.earliest, times.latest))));
    }

    /// Drops the blocks before this one.
    pub(super) fn forget(&self, before: i64) {
        let mut known = self.0.write();
        *known = known.split_off(&before);
    }

    /// Returns the ranges of `seq`, newest first, that may match the filter's times. If there are
    /// [`MAX_RANGES`], more may follow below the last one.
    pub(super) fn ranges(&self, filter: &ListFilter) -> Vec<Range<i64>> {
        let mut above = filter.cursor.map_or(i64::MAX, |cursor| cursor.seq);
        let after = filter.created_after.map_or(i64::MIN, |time| time.as_micros());
        let before = filter.created_before.map_or(i64::MAX, |time| time.as_micros());
        let mut ranges = Vec::new();
        if (after, before) != (i64::MIN, i64::MAX) {
            let known = self.0.read();
            for (&block, &(earliest, latest)) in
                known.range(..=above.saturating_sub(1) / BLOCK).rev()
            {
                if latest >= after && earliest < before {
                    continue;
                }
                let end = (block + 1) * BLOCK;
                if end < above {
                    ranges.push(end..above);
                    if ranges.len() == MAX_RANGES {
                        return ranges;
                    }
                }
                above = block * BLOCK;
            }
        }
        if above > 0 {
            ranges.push(0..above);
        }
        ranges
    }

    /// Returns the first unrecorded blocks between `from` and `end`, up to [`STEP`].
    pub(super) fn gap(&self, from: i64, end: i64) -> Option<Range<i64>> {
        let known = self.0.read();
        let mut first = from;
        for &block in known.range(from..end).map(|(block, _)| block) {
            if block > first {
                return Some(first..block.min(first + STEP));
            }
            first = block + 1;
        }
        (first < end).then(|| first..end.min(first + STEP))
    }
}

/// Whether more ranges may follow these.
pub(super) fn is_cut(ranges: &[Range<i64>]) -> bool {
    ranges.len() == MAX_RANGES
}

pub(super) const RECORD: OverRows = OverRows {
    columns: &["block", "earliest", "latest"],
    sql: "INSERT OR REPLACE INTO submission_times (block, earliest, latest) \
          SELECT * FROM new WHERE block IS NOT NULL",
};

pub(super) const FORGET: OverRows = OverRows {
    columns: &["first"],
    sql: "DELETE FROM submission_times WHERE block < (SELECT max(first) FROM new)",
};

/// Stores the times of blocks, and drops those of erased ones.
pub(super) async fn store(
    transaction: &mut Transaction<'_>,
    steps: &[&UpkeepStep],
) -> sqlx::Result<()> {
    let blocks: Vec<_> = steps.iter().flat_map(|step| &step.blocks).collect();
    transaction.write(&RECORD, &blocks, |row, times| {
        row.bind(times.block).bind(times.earliest).bind(times.latest);
    });
    transaction.write(&FORGET, steps, |row, step| {
        row.bind(step.first_block);
    });
    if steps.iter().any(|step| step.drop_index) {
        let drop = sqlx::query("DROP INDEX IF EXISTS tasks_by_time");
        drop.execute(transaction.connection().await?).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::filter::Cursor;
    use crate::task::Timestamp;

    proptest! {
        #[test]
        fn ranges_leave_out_only_blocks_of_other_times(
            blocks in prop::collection::vec(prop::option::of((0..9_i64, 0..9_i64)), 0..20),
            after in prop::option::of(0..9_i64),
            before in prop::option::of(0..9_i64),
            below in prop::option::of(0..20 * BLOCK),
        ) {
            let times = Times::default();
            let known = |block: i64| {
                let known = usize::try_from(block).ok().and_then(|at| *blocks.get(at)?);
                known.map(|(one, other)| (one.min(other), one.max(other)))
            };
            for block in 0..20 {
                if let Some((earliest, latest)) = known(block) {
                    times.record(&[BlockTimes { block, earliest, latest }]);
                }
            }
            let ranges = times.ranges(&ListFilter {
                created_after: after.map(Timestamp::from_micros),
                created_before: before.map(Timestamp::from_micros),
                cursor: below.map(|seq| Cursor { seq }),
                ..ListFilter::default()
            });
            prop_assert!(ranges.iter().all(|range| range.start < range.end));
            prop_assert!(ranges.is_sorted_by(|newer, older| newer.start > older.end));
            for block in 0..21 {
                let wanted = known(block).is_none_or(|(earliest, latest)| {
                    after.is_none_or(|after| latest >= after)
                        && before.is_none_or(|before| earliest < before)
                });
                for seq in [block * BLOCK, block * BLOCK + BLOCK / 2, (block + 1) * BLOCK - 1] {
                    let below = below.is_none_or(|below| seq < below);
                    let found = ranges.iter().any(|range| range.contains(&seq));
                    prop_assert_eq!(found, wanted && below, "{}", seq);
                }
            }
        }
    }

    #[test]
    fn gaps_are_found_in_steps() {
        let times = Times::default();
        let record = |block| times.record(&[BlockTimes { block, earliest: 0, latest: 0 }]);
        record(2);
        record(3);
        assert_eq!(times.gap(0, 3), Some(0..2));
        assert_eq!(times.gap(2, 4), None);
        assert_eq!(times.gap(2, 5), Some(4..5));
        assert_eq!(times.gap(3, 1000), Some(4..4 + STEP));
        times.forget(3);
        assert_eq!(times.gap(2, 4), Some(2..3));
    }
}
