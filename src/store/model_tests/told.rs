//! What a store tells in the course of a move.

use super::moves::End;
use crate::store::CancelEffect;

/// What clients are answered and the observer is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// In the order of the changes.
    pub(super) answers: Vec<Answer>,
    /// In no order.
    pub(super) news: Vec<News>,
    /// Whether an end was not that of the attempt that owned its task.
    pub(super) late_end: bool,
    /// The attempts that a stop has ended: `seq`, epoch, and how.
    pub(super) stopped: Vec<(i64, i64, End)>,
    pub(super) restart: Restart,
}

/// What is told when the store was opened again.
#[derive(Clone, Debug, Default)]
pub(super) struct Restart {
    pub(super) due: Vec<i64>,
    /// The unfinished outputs that are removed: path, `seq` and epoch.
    pub(super) partials: Vec<(u8, i64, i64)>,
    pub(super) news: Vec<News>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Stored(i64),
    OutputInUse(i64),
    OutputOverlaps,
    RetriedBefore,
    Replayed(i64, u8),
    Cancel(CancelEffect),
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// Stored, and not ready.
    Scheduled(i64),
    /// With its epoch.
    Claimed(i64, i64),
    Cancelled(i64),
    Ended(i64),
    Disowned(i64),
}
