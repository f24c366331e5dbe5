//! Queue positions of ready tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sqlx::{QueryBuilder, Row};

use super::claims::push_ready;
use super::columns::decode;
use super::readers::Readers;
use crate::store::error::StoreError;
use crate::store::filter::{MAX_POSITION, Positions};

/// Cache of the latest positions. Valid until the next commit, so lists and polls of an idle backlog
/// share one query. The writer counts commits; readers fill the cache and compare the count.
#[derive(Debug, Default)]
pub(super) struct PositionCache {
    /// Number of commits. Incremented by the writer after each one.
    commits: AtomicU64,
    /// Number of commits before the read, and the positions.
    latest: Mutex<Option<(u64, Arc<Positions>)>>,
}

impl PositionCache {
    pub(super) fn invalidate(&self) {
        self.commits.fetch_add(1, Ordering::Release);
    }

    /// Returns the queue positions of ready tasks of these types, up to [`MAX_POSITION`].
    pub(super) async fn read(
        &self,
        readers: &Readers,
        types: &[&'static str],
    ) -> Result<Arc<Positions>, StoreError> {
        let commits = self.commits.load(Ordering::Acquire);
        if let Some((read_at, positions)) = &*self.latest.lock()
            && *read_at == commits
        {
            return Ok(Arc::clone(positions));
        }
        let limit = MAX_POSITION as usize;
        let by_type: Vec<_> = types.iter().map(|&name| (name, limit)).collect();
        let mut query = QueryBuilder::new("SELECT json_group_array(seq) FROM (");
        push_ready(&mut query, &by_type, limit);
        let row = query.push(")").build().fetch_one(readers.points()).await?;
        let seqs: &str = row.try_get(0)?;
        let queue: Vec<i64> = serde_json::from_str(seqs).map_err(decode)?;
        let positions = Arc::new(queue.into_iter().zip(1..).collect());
        *self.latest.lock() = Some((commits, Arc::clone(&positions)));
        Ok(positions)
    }
}
