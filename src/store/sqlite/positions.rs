//! Positions of ready tasks in the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sqlx::{QueryBuilder, Row};

use super::claims::push_ready;
use super::columns::decode;
use super::reads::ReadHalf;
use crate::store::error::StoreError;
use crate::store::filter::{MAX_POSITION, Positions};

/// The positions that were read last. They hold until the next commit, so lists and polls of a backlog that
/// stands still share them.
#[derive(Debug, Default)]
pub(super) struct PositionCache {
    /// Counts commits. Written by the writer after each one.
    commits: AtomicU64,
    /// Positions, and the number of commits before they were read.
    latest: Mutex<Option<(u64, Arc<Positions>)>>,
}

impl PositionCache {
    pub(super) fn invalidate(&self) {
        self.commits.fetch_add(1, Ordering::Release);
    }
}

impl ReadHalf {
    /// Positions of the ready tasks that run next, up to [`MAX_POSITION`].
    pub(in crate::store) async fn positions(&self) -> Result<Arc<Positions>, StoreError> {
        let cache = &self.positions;
        let commits = cache.commits.load(Ordering::Acquire);
        if let Some((read_at, positions)) = &*cache.latest.lock()
            && *read_at == commits
        {
            return Ok(Arc::clone(positions));
        }
        let queue = self.queue(MAX_POSITION as usize).await?;
        let positions = Arc::new(queue.into_iter().zip(1..).collect());
        *cache.latest.lock() = Some((commits, Arc::clone(&positions)));
        Ok(positions)
    }

    /// The ready tasks that run next, in order, at most `limit`.
    async fn queue(&self, limit: usize) -> Result<Vec<i64>, StoreError> {
        let by_type: Vec<_> = self.known_types.iter().map(|&name| (name, limit)).collect();
        let mut query = QueryBuilder::new("SELECT json_group_array(seq) FROM (");
        push_ready(&mut query, &by_type, limit);
        let row = query.push(")").build().fetch_one(self.readers.points()).await?;
        let seqs: &str = row.try_get(0)?;
        serde_json::from_str(seqs).map_err(|error| decode(error).into())
    }
}
