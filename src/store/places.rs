//! Which tasks run, and how many more may.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::TaskRecord;

/// How many tasks may run at once: in all, and of each type that this server knows.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    pub(crate) by_type: Vec<(&'static str, usize)>,
}

/// How many tasks may be claimed: in all, and of each type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Room {
    pub(super) total: usize,
    /// Types that are not in here are unknown to this server and stay where they are.
    pub(super) by_type: Vec<(&'static str, usize)>,
    /// Whether one of them may be what killed the server before.
    pub(super) suspect: bool,
}

impl Room {
    /// Takes a place for a task of this type, if there is one.
    pub(super) fn take(&mut self, task_type: &str) -> bool {
        if self.total == 0 {
            return false;
        }
        match self.of_type(task_type) {
            Some(free) if *free > 0 => *free -= 1,
            _ => return false,
        }
        self.total -= 1;
        true
    }

    fn of_type(&mut self, task_type: &str) -> Option<&mut usize> {
        self.by_type.iter_mut().find(|(name, _)| *name == task_type).map(|(_, free)| free)
    }

    fn give_back(&mut self, task: &Running) {
        self.total += 1;
        self.suspect |= task.suspect;
        if let Some(free) = self.of_type(&task.task_type) {
            *free += 1;
        }
    }
}

/// The running tasks, and the places that they leave.
#[derive(Debug)]
pub(super) struct Places {
    limits: Limits,
    free: Room,
    /// By `seq`.
    running: HashMap<i64, Running>,
}

/// What has to be known of a running task.
#[derive(Debug)]
struct Running {
    epoch: i64,
    task_type: String,
    /// Whether the server has died twice while this task ran.
    suspect: bool,
}

impl Places {
    /// `suspects` says whether there are any.
    pub(super) fn new(limits: Limits, suspects: bool) -> Self {
        let free = Room { total: limits.total, by_type: limits.by_type.clone(), suspect: suspects };
        Self { limits, free, running: HashMap::new() }
    }

    /// A task runs.
    pub(super) fn fill(&mut self, record: &TaskRecord) {
        let task = Running {
            epoch: record.epoch,
            task_type: record.info.task_type.clone(),
            suspect: record.is_suspect(),
        };
        self.run(record.seq, task);
    }

    fn run(&mut self, seq: i64, task: Running) {
        self.free.total -= 1;
        self.free.suspect &= !task.suspect;
        if let Some(free) = self.free.of_type(&task.task_type) {
            *free -= 1;
        }
        self.running.insert(seq, task);
    }

    /// An attempt, named by its task's `seq` and its epoch, runs no more. One that has lost its task
    /// to another attempt leaves the place to that one. Whether it had a place.
    pub(super) fn leave(&mut self, (seq, epoch): (i64, i64)) -> bool {
        if let Entry::Occupied(running) = self.running.entry(seq)
            && running.get().epoch == epoch
        {
            self.free.give_back(&running.remove());
            return true;
        }
        false
    }

    /// The places that are free once these attempts have ended.
    pub(super) fn free_after(&self, ended: impl Iterator<Item = (i64, i64)>) -> Room {
        let mut room = self.free.clone();
        let left = ended
            .filter_map(|(seq, epoch)| self.running.get(&seq).filter(|task| task.epoch == epoch));
        left.for_each(|task| room.give_back(task));
        room
    }

    /// Whether others of its kind may have waited for the end of this task, though there was room
    /// for tasks of other kinds.
    pub(super) fn is_rationed(&self, seq: i64) -> bool {
        let limit = |task_type: &str| {
            self.limits.by_type.iter().find(|(name, _)| *name == task_type).map(|&(_, limit)| limit)
        };
        self.running.get(&seq).is_some_and(|task| {
            task.suspect || limit(&task.task_type).is_some_and(|limit| limit < self.limits.total)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_free_is_what_does_not_run(
            ended in prop::collection::vec(any::<bool>(), 8),
            types in prop::collection::vec(0..3_usize, 8),
            // There is one at the most.
            suspect in prop::option::of(0..8_usize),
        ) {
            let names = ["a", "b", "unknown"];
            let limits = Limits { total: 9, by_type: vec![("a", 9), ("b", 8)] };
            let mut places = Places::new(limits, true);
            for (seq, &name) in types.iter().enumerate() {
                let (task_type, suspect) = (names[name].to_owned(), suspect == Some(seq));
                places.run(seq as i64, Running { epoch: 2, task_type, suspect });
            }
            let gone = || (0..8).filter(|&seq: &usize| ended[seq]).map(|seq| (seq as i64, 2));
            let late = || (0..8).map(|seq| (seq, 1));
            let room = places.free_after(gone().chain(late()));
            for attempt in gone().chain(late()) {
                places.leave(attempt);
            }
            prop_assert_eq!(&room, &places.free_after(std::iter::empty()));

            let stay = || (0..8).filter(|&seq: &usize| !ended[seq]);
            let of = |name: usize| stay().filter(|&seq| types[seq] == name).count();
            prop_assert_eq!(room.total, 9 - of(0) - of(1) - of(2));
            prop_assert_eq!(room.by_type, [("a", 9 - of(0)), ("b", 8 - of(1))]);
            prop_assert_eq!(room.suspect, !stay().any(|seq| suspect == Some(seq)));
        }
    }
}
