//! Run slots of this node: the running tasks, and the slots that they leave free.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::record::TaskRecord;

/// Limits on running tasks: in total, and for each type that this server knows.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    pub(crate) by_type: Vec<(&'static str, usize)>,
}

impl Limits {
    /// Limit of a type; `None` if this server does not know it.
    pub(crate) fn of_type(&self, task_type: &str) -> Option<usize> {
        self.by_type.iter().find(|(name, _)| *name == task_type).map(|&(_, limit)| limit)
    }
}

/// Free slots: in total, and for each type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FreeSlots {
    pub(super) total: usize,
    /// Known types. Tasks of other types stay pending.
    pub(super) by_type: Vec<(&'static str, usize)>,
    /// Whether a suspect may run: a task that was interrupted twice.
    pub(super) suspect: bool,
    /// Whether a rationed slot was freed, so tasks that were passed over may run now.
    pub(super) reopened: bool,
}

impl FreeSlots {
    /// Takes a slot for a task of this type, if one is free.
    pub(super) fn take(&mut self, task_type: &str) -> bool {
        let total = self.total;
        let Some(free) = self.of_type(task_type).filter(|free| total > 0 && **free > 0) else {
            return false;
        };
        *free -= 1;
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

/// The running tasks and the slots that they leave free. Owned by the writer.
#[derive(Debug)]
pub(super) struct Slots {
    limits: Limits,
    free: FreeSlots,
    /// By `seq`.
    running: HashMap<i64, Running>,
}

#[derive(Debug)]
struct Running {
    epoch: i64,
    task_type: String,
    suspect: bool,
}

impl Slots {
    /// `suspects`: whether any task was interrupted twice.
    pub(super) fn new(limits: Limits, suspects: bool) -> Self {
        let (total, by_type) = (limits.total, limits.by_type.clone());
        let free = FreeSlots { total, by_type, suspect: suspects, reopened: false };
        Self { limits, free, running: HashMap::new() }
    }

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

    /// Frees the slot of an attempt (`seq`, epoch). Returns whether it held one: an attempt that lost
    /// its task to a later one has also lost the slot.
    pub(super) fn leave(&mut self, (seq, epoch): (i64, i64)) -> bool {
        if let Entry::Occupied(running) = self.running.entry(seq)
            && running.get().epoch == epoch
        {
            self.free.give_back(&running.remove());
            return true;
        }
        false
    }

    /// Free slots after the end of these attempts.
    pub(super) fn free_after(&self, ended: impl Iterator<Item = (i64, i64)>) -> FreeSlots {
        let mut free = self.free.clone();
        for (seq, epoch) in ended {
            if let Some(task) = self.running.get(&seq).filter(|task| task.epoch == epoch) {
                free.reopened |= self.is_rationed(task);
                free.give_back(task);
            }
        }
        free
    }

    /// Whether other tasks may have been passed over for lack of this slot while others were free.
    fn is_rationed(&self, task: &Running) -> bool {
        let limit = self.limits.of_type(&task.task_type);
        task.suspect || limit.is_some_and(|limit| limit < self.limits.total)
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
            let mut slots = Slots::new(limits, true);
            for (seq, &name) in types.iter().enumerate() {
                let (task_type, suspect) = (names[name].to_owned(), suspect == Some(seq));
                slots.run(seq as i64, Running { epoch: 2, task_type, suspect });
            }
            let gone = || (0..8).filter(|&seq: &usize| ended[seq]).map(|seq| (seq as i64, 2));
            let late = || (0..8).map(|seq| (seq, 1));
            let free = slots.free_after(gone().chain(late()));
            for attempt in gone().chain(late()) {
                slots.leave(attempt);
            }
            let reopened = free.reopened;
            prop_assert_eq!(&free, &FreeSlots { reopened, ..slots.free_after(std::iter::empty()) });

            let stay = || (0..8).filter(|&seq: &usize| !ended[seq]);
            let of = |name: usize| stay().filter(|&seq| types[seq] == name).count();
            prop_assert_eq!(free.total, 9 - of(0) - of(1) - of(2));
            prop_assert_eq!(free.by_type, [("a", 9 - of(0)), ("b", 8 - of(1))]);
            prop_assert_eq!(free.suspect, !stay().any(|seq| suspect == Some(seq)));
        }
    }
}
