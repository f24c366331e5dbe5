//! Positions of ready tasks in the queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sqlx::{QueryBuilder, Row};

use super::claims::push_ready;
use super::{Store, StoreError};
use crate::task::TaskType;

/// Positions beyond this are not counted.
pub(crate) const MAX_POSITION: u32 = 1000;

/// By `seq`, counted from 1.
pub(crate) type Positions = HashMap<i64, u32>;

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

impl Store {
    /// Positions of the ready tasks that run next, up to [`MAX_POSITION`].
    pub(crate) async fn positions(&self) -> Result<Arc<Positions>, StoreError> {
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
        let by_type: Vec<_> = TaskType::names().map(|name| (name, limit)).collect();
        let mut query = QueryBuilder::new("SELECT json_group_array(seq) FROM (");
        push_ready(&mut query, &by_type, limit);
        let row = query.push(")").build().fetch_one(self.readers.points()).await?;
        let seqs: &str = row.try_get(0)?;
        serde_json::from_str(seqs)
            .map_err(|error| StoreError::from(sqlx::Error::Decode(Box::new(error))))
    }
}
