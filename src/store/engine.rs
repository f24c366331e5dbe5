//! What a database engine provides: a writing half, which the writer owns, and a reading half, which all
//! readers share as `store.reads`. The set of engines is closed; [`Engine`] has a variant for each.

use super::change::Change;
use super::error::StoreError;
use super::results::Results;
use super::slots::FreeSlots;
use super::sqlite::WriteHalf;

/// The writing half.
pub(super) enum Engine {
    Sqlite(Box<WriteHalf>),
}

impl Engine {
    /// Applies a batch as one transaction, and claims pending tasks for the free slots: waiting ones
    /// first, then new ones. After an error nothing has changed. Lost guards and conflicts are results,
    /// not errors. Within a batch the order is progress, ends, promotions, cancellations, erasures,
    /// upkeep, logs, types, claims, submissions; each step sees the effects of the ones before.
    pub(super) async fn commit(
        &mut self,
        batch: &[Change],
        free: FreeSlots,
    ) -> Result<Results, StoreError> {
        let Self::Sqlite(half) = self;
        half.commit(batch, free).await
    }

    /// Closes the database.
    pub(super) async fn close(self) -> Result<(), StoreError> {
        let Self::Sqlite(half) = self;
        half.close().await
    }
}
