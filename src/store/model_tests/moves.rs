//! What can happen to a store: changes that are committed together, a polite stop, a crash.

use proptest::prelude::*;
use proptest::sample::select;

use super::model::{Model, Task};
use crate::store::CANCELLED_MESSAGE;
use crate::task::TaskStatus;

/// The types of the tasks. Of the second one only one task may run at a time; the third one is
/// unknown to the server.
pub(super) const TYPES: [&str; 3] = ["dummy_short", "tokenize", "image_process"];
/// How many tasks may run at once: in all, and of each type.
pub(super) const LIMITS: (usize, [usize; 3]) = (3, [3, 1, 0]);

/// One step of a run.
#[derive(Clone, Debug)]
pub(super) enum Move {
    /// These changes wait for the writer together.
    Changes(Vec<Change>),
    /// The same, and the process dies when they have been answered.
    Crash(Vec<Change>),
    /// Running attempts are given back, the store is closed and opened again.
    Stop,
}

/// A change, made to a task that is named by its `seq`; there need not be such a task.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Submit(NewTask),
    Progress {
        seq: i64,
        epoch: i64,
        percent: u8,
    },
    End {
        seq: i64,
        epoch: i64,
        end: End,
    },
    Promote(Vec<i64>),
    Cancel {
        seq: i64,
        accepted: bool,
    },
    /// Erases what ended, and keys that were used, before these moves.
    Erase {
        before: Option<usize>,
        keys_before: usize,
    },
}

#[derive(Clone, Debug)]
pub(super) struct NewTask {
    /// Index into [`TYPES`].
    pub(super) kind: usize,
    pub(super) priority: i32,
    pub(super) start: Start,
    pub(super) tag: Option<u8>,
    pub(super) output: Option<u8>,
    /// An idempotency key, and the hash of a body.
    pub(super) key: Option<(u8, u8)>,
    pub(super) retry: Option<(i64, bool)>,
}

impl Change {
    /// The last task that it names.
    fn last_named(&self) -> i64 {
        match self {
            Self::Submit(new) => new.retry.map_or(0, |(of, _)| of),
            Self::Progress { seq, .. } | Self::End { seq, .. } | Self::Cancel { seq, .. } => *seq,
            Self::Promote(seqs) => seqs.iter().copied().max().unwrap_or_default(),
            Self::Erase { .. } => 0,
        }
    }
}

/// When a task may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    AtOnce,
    Later,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    Failed,
    /// Failed, and to be tried again after a pause.
    Retry,
    /// Given back: as if the attempt had never begun.
    GivenBack,
    /// Given back, and left alone until the next start: this server cannot run it.
    SetAside,
    Cancelled,
}

impl End {
    pub(super) fn gives_back(self) -> bool {
        matches!(self, Self::GivenBack | Self::SetAside)
    }

    pub(super) fn status(self) -> TaskStatus {
        match self {
            Self::Completed => TaskStatus::Completed,
            Self::Failed => TaskStatus::Failed,
            Self::Retry | Self::GivenBack | Self::SetAside => TaskStatus::Pending,
            Self::Cancelled => TaskStatus::Cancelled,
        }
    }

    pub(super) fn progress(self) -> f64 {
        match self {
            Self::Completed => 100.0,
            Self::Failed | Self::Cancelled => 50.0,
            Self::Retry | Self::GivenBack | Self::SetAside => 0.0,
        }
    }

    pub(super) fn has_error(self) -> bool {
        matches!(self, Self::Failed | Self::Retry)
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Completed => "Task completed successfully",
            Self::Failed => "Task failed: no luck",
            Self::Retry => "Attempt failed",
            Self::GivenBack => "",
            Self::SetAside => "cannot be run here",
            Self::Cancelled => CANCELLED_MESSAGE,
        }
    }
}

/// Whether this can happen. Nobody knows a task that is not stored yet. Each attempt has one runner,
/// which tells its end once; a runner that has lost its task to another attempt is the worst case,
/// and comes alone.
pub(super) fn is_possible(model: &Model, next: &Move) -> bool {
    let (Move::Changes(changes) | Move::Crash(changes)) = next else { return true };
    if changes.iter().any(|change| change.last_named() > model.stored) {
        return false;
    }
    // A runner whose end was refused has no other: its place is free already, and would be once more.
    let is_over = |seq, epoch: &i64| {
        let task = model.tasks.get(seq).filter(|task| task.epoch == *epoch);
        task.is_some_and(|task| task.status == TaskStatus::Running && !task.has_place)
    };
    if changes.iter().any(|it| matches!(it, Change::End { seq, epoch, .. } if is_over(seq, epoch)))
    {
        return false;
    }
    let ends = changes.iter().filter_map(|change| match change {
        Change::End { seq, .. } => Some(seq),
        _ => None,
    });
    let mut ends: Vec<_> = ends.collect();
    let all = ends.len();
    ends.sort();
    ends.dedup();
    if ends.len() < all {
        return false;
    }
    let mut after = model.clone();
    after.make(next);
    changes.len() == 1 || !after.told.late_end
}

pub(super) fn any_move(model: &Model) -> BoxedStrategy<Move> {
    let changes = prop::collection::vec(any_change(model), 1..5);
    let late_end = an_end(model, prop_oneof![Just(-1), Just(0), Just(1)].boxed());
    prop_oneof![
        30 => changes.clone().prop_map(Move::Changes),
        2 => late_end.prop_map(|end| Move::Changes(vec![end])),
        1 => Just(Move::Stop),
        2 => changes.prop_map(Move::Crash),
    ]
    .boxed()
}

fn any_change(model: &Model) -> BoxedStrategy<Change> {
    let running = one_of(model, |task| task.has_place);
    let waiting = one_of(model, |task| task.due);
    let unfinished = one_of(model, |task| !task.status.is_final());
    let epochs = epochs(model);
    let epoch = move |seq| epochs.get(&seq).copied().unwrap_or_default();
    let moves = model.moves;
    prop_oneof![
        8 => any_task(model).prop_map(Change::Submit),
        2 => (running, -1..1_i64, 0..100_u8).prop_map(move |(seq, off, percent)| {
            Change::Progress { seq, epoch: epoch(seq) + off, percent }
        }),
        6 => an_end(model, Just(0).boxed()),
        2 => prop::collection::vec(waiting, 1..4).prop_map(Change::Promote),
        3 => (unfinished, any::<bool>())
            .prop_map(|(seq, accepted)| Change::Cancel { seq, accepted }),
        1 => (prop::option::of(0..=moves), 0..=moves)
            .prop_map(|(before, keys_before)| Change::Erase { before, keys_before }),
    ]
    .boxed()
}

/// Output keys; folders end with a slash.
pub(super) const OUTPUTS: [&str; 5] = ["/a", "/a/", "/a/b", "/a/b/c", "/a0/"];

fn any_task(model: &Model) -> BoxedStrategy<NewTask> {
    let kind = prop_oneof![6 => Just(0), 3 => Just(1), 1 => Just(2)];
    let start = prop_oneof![
        8 => Just(Start::AtOnce),
        3 => Just(Start::Later),
    ];
    let tag = prop::option::of(0..2_u8);
    let output = prop::option::weighted(0.3, 0..OUTPUTS.len() as u8);
    let key = prop::option::weighted(0.3, (0..4_u8, 0..2_u8));
    let of = one_of(model, |task| task.status.is_final());
    let retry = prop::option::weighted(0.2, (of, any::<bool>()));
    (kind, -1..2_i32, start, tag, output, key, retry)
        .prop_map(|(kind, priority, start, tag, output, key, retry)| NewTask {
            kind,
            priority,
            start,
            tag,
            output,
            key,
            retry,
        })
        .boxed()
}

/// The end of an attempt whose epoch is off by so many.
fn an_end(model: &Model, off: BoxedStrategy<i64>) -> BoxedStrategy<Change> {
    let end = prop_oneof![
        4 => Just(End::Completed),
        2 => Just(End::Failed),
        2 => Just(End::Retry),
        1 => Just(End::GivenBack),
        1 => Just(End::SetAside),
        2 => Just(End::Cancelled),
    ];
    let epochs = epochs(model);
    (one_of(model, |task| task.has_place), off, end)
        .prop_map(move |(seq, off, end)| {
            let epoch = epochs.get(&seq).copied().unwrap_or_default() + off;
            Change::End { seq, epoch, end }
        })
        .boxed()
}

fn epochs(model: &Model) -> std::collections::BTreeMap<i64, i64> {
    model.tasks.iter().map(|(&seq, task)| (seq, task.epoch)).collect()
}

/// Mostly a task that is wanted; now and then any other one, one that was erased, or one that never
/// was.
fn one_of(model: &Model, wanted: impl Fn(&Task) -> bool) -> BoxedStrategy<i64> {
    let any = 0..=model.stored;
    let wanted = model.list(wanted);
    if wanted.is_empty() {
        return any.boxed();
    }
    prop_oneof![9 => select(wanted), 1 => any].boxed()
}
