//! Run slots and CPU slots of this node: what the running tasks take, and what they leave free.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::record::TaskRecord;

/// Limits on running tasks: in total, and for each type that this server can run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    /// Number of running tasks.
    pub(crate) total: usize,
    /// CPU slots of the tasks that take them while they run.
    pub(crate) cpus: usize,
    pub(crate) by_type: Vec<TypeLimit>,
}

/// Limit of one task type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TypeLimit {
    pub(crate) name: &'static str,
    /// Number of running tasks.
    pub(crate) tasks: usize,
    /// CPU slots that a task takes while it runs; 0 if it takes them as it needs them.
    pub(crate) cpus: usize,
}

impl Limits {
    /// Limits of types whose tasks take no CPU slots.
    #[cfg(test)]
    pub(super) fn of(total: usize, types: &[(&'static str, usize)]) -> Self {
        let of = |&(name, tasks)| TypeLimit { name, tasks, cpus: 0 };
        Self { total, cpus: 0, by_type: types.iter().map(of).collect() }
    }

    /// Limit of a type; `None` if this server cannot run it.
    pub(crate) fn of_type(&self, task_type: &str) -> Option<TypeLimit> {
        self.by_type.iter().find(|of| of.name == task_type).copied()
    }

    /// The types that this server can run.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.by_type.iter().map(|of| of.name).collect()
    }
}

/// Free slots, as limits for further tasks.
#[derive(Clone, Debug)]
pub(super) struct FreeSlots {
    /// Tasks of other types stay pending.
    pub(super) limits: Limits,
    /// Whether a suspect may run: a task that was interrupted twice.
    pub(super) suspect: bool,
    /// Whether a rationed slot was freed, so tasks that were passed over may run now.
    pub(super) reopened: bool,
}

impl FreeSlots {
    /// Takes the slots for a task of this type, if they are free. A task that lacks CPU slots leaves none
    /// to the ones behind it, or smaller ones could overtake it forever.
    pub(super) fn take(&mut self, task_type: &str) -> bool {
        let Limits { total, cpus, by_type } = &mut self.limits;
        let of_type = by_type.iter_mut().find(|of| of.name == task_type);
        let Some(free) = of_type.filter(|free| *total > 0 && free.tasks > 0) else {
            return false;
        };
        if free.cpus > *cpus {
            *cpus = 0;
            return false;
        }
        free.tasks -= 1;
        *total -= 1;
        *cpus -= free.cpus;
        true
    }

    /// Number of tasks of each type that could run if no other type did. One that lacks only a part of
    /// its CPU slots counts, so that it can wait for the rest.
    pub(super) fn by_type(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let cpus = self.limits.cpus;
        self.limits.by_type.iter().map(move |of| match (of.cpus, cpus) {
            (0, _) => (of.name, of.tasks),
            (_, 0) => (of.name, 0),
            (needed, free) => (of.name, of.tasks.min((free / needed).max(1))),
        })
    }
}

/// The running tasks. Owned by the writer.
#[derive(Debug)]
pub(super) struct Slots {
    limits: Limits,
    /// By `seq`.
    running: HashMap<i64, Running>,
    /// Whether any task was interrupted twice.
    suspects: bool,
}

#[derive(Debug)]
struct Running {
    epoch: i64,
    task_type: String,
    /// CPU slots that it holds.
    cpus: usize,
    suspect: bool,
}

impl Slots {
    /// `suspects`: whether any task was interrupted twice.
    pub(super) fn new(limits: Limits, suspects: bool) -> Self {
        Self { limits, running: HashMap::new(), suspects }
    }

    /// Replaces the limits. Running tasks keep what they hold.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(super) fn fill(&mut self, record: &TaskRecord) {
        let task_type = record.info.task_type.clone();
        let cpus = self.limits.of_type(&task_type).map_or(0, |of| of.cpus);
        let suspect = record.is_suspect();
        self.running.insert(record.seq, Running { epoch: record.epoch, task_type, cpus, suspect });
    }

    /// Frees the slots of an attempt (`seq`, epoch). Returns whether it held any: an attempt that lost
    /// its task to a later one has also lost its slots.
    pub(super) fn leave(&mut self, (seq, epoch): (i64, i64)) -> bool {
        match self.running.entry(seq) {
            Entry::Occupied(running) if running.get().epoch == epoch => {
                running.remove();
                true
            }
            _ => false,
        }
    }

    /// Free slots after the end of these attempts.
    pub(super) fn free_after(&self, ended: impl Iterator<Item = (i64, i64)>) -> FreeSlots {
        let ended: HashSet<_> = ended.collect();
        let (mut limits, mut suspect, mut reopened) = (self.limits.clone(), self.suspects, false);
        for (seq, task) in &self.running {
            if ended.contains(&(*seq, task.epoch)) {
                reopened |= self.is_rationed(task);
                continue;
            }
            // More may run than lowered limits allow.
            limits.total = limits.total.saturating_sub(1);
            limits.cpus = limits.cpus.saturating_sub(task.cpus);
            suspect &= !task.suspect;
            if let Some(of) = limits.by_type.iter_mut().find(|of| of.name == task.task_type) {
                of.tasks = of.tasks.saturating_sub(1);
            }
        }
        FreeSlots { limits, suspect, reopened }
    }

    /// Whether other tasks may have been passed over for lack of these slots while others were free.
    fn is_rationed(&self, task: &Running) -> bool {
        let limit = self.limits.of_type(&task.task_type);
        let limited = limit.is_some_and(|limit| limit.tasks < self.limits.total);
        task.suspect || task.cpus > 0 || limited
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 3] = ["a", "b", "unknown"];

    fn limits() -> Limits {
        let of = |name, tasks, cpus| TypeLimit { name, tasks, cpus };
        Limits { total: 9, cpus: 20, by_type: vec![of("a", 9, 0), of("b", 8, 2)] }
    }

    proptest! {
        #[test]
        fn what_is_free_is_what_does_not_run(
            ended in prop::collection::vec(any::<bool>(), 8),
            types in prop::collection::vec(0..3_usize, 8),
            // There is one at the most.
            suspect in prop::option::of(0..8_usize),
        ) {
            let mut slots = Slots::new(limits(), true);
            for (seq, &name) in types.iter().enumerate() {
                let cpus = if name == 1 { 2 } else { 0 };
                let (task_type, suspect) = (NAMES[name].to_owned(), suspect == Some(seq));
                slots.running.insert(seq as i64, Running { epoch: 2, task_type, cpus, suspect });
            }
            let gone = || (0..8).filter(|&seq: &usize| ended[seq]).map(|seq| (seq as i64, 2));
            let late = || (0..8).map(|seq| (seq, 1));
            let free = slots.free_after(gone().chain(late()));
            for attempt in gone().chain(late()) {
                slots.leave(attempt);
            }
            let after = slots.free_after(std::iter::empty());
            prop_assert_eq!(&free.limits.by_type, &after.limits.by_type);
            prop_assert_eq!((free.limits.total, free.suspect), (after.limits.total, after.suspect));

            let stay = || (0..8).filter(|&seq: &usize| !ended[seq]);
            let of = |name: usize| stay().filter(|&seq| types[seq] == name).count();
            prop_assert_eq!(free.limits.total, 9 - of(0) - of(1) - of(2));
            prop_assert_eq!(free.limits.cpus, 20 - 2 * of(1));
            let tasks: Vec<_> = free.limits.by_type.iter().map(|free| free.tasks).collect();
            prop_assert_eq!(tasks, [9 - of(0), 8 - of(1)]);
            prop_assert_eq!(free.suspect, !stay().any(|seq| suspect == Some(seq)));
        }
    }

    fn free(cpus: usize, by_type: &[(&'static str, usize)]) -> FreeSlots {
        let of = |&(name, cpus)| TypeLimit { name, tasks: 9, cpus };
        let limits = Limits { total: 9, cpus, by_type: by_type.iter().map(of).collect() };
        FreeSlots { limits, suspect: false, reopened: false }
    }

    #[test]
    fn a_large_task_that_waits_for_cpu_slots_is_not_overtaken_by_small_ones() {
        let mut free = free(3, &[("large", 4), ("small", 1), ("none", 0)]);
        assert!(free.take("small"));
        assert!(!free.take("large"));
        assert!(!free.take("small"), "it would leave the large one waiting");
        assert!(free.take("none"));
    }

    #[test]
    fn lowered_limits_leave_nothing_free_until_enough_have_ended() {
        let mut slots = Slots::new(limits(), false);
        for seq in 0..3 {
            let task_type = "b".to_owned();
            slots.running.insert(seq, Running { epoch: 1, task_type, cpus: 2, suspect: false });
        }
        slots.set_limits(Limits {
            total: 2,
            cpus: 4,
            by_type: vec![TypeLimit { name: "b", tasks: 1, cpus: 2 }],
        });
        assert!(!slots.free_after([(0, 1)].into_iter()).take("b"));
        assert!(!slots.free_after([(0, 1), (1, 1)].into_iter()).take("b"));
        assert!(slots.free_after([(0, 1), (1, 1), (2, 1)].into_iter()).take("b"));
    }

    #[test]
    fn each_type_is_looked_through_as_far_as_it_could_run() {
        let of = |cpus| {
            let free = free(cpus, &[("large", 4), ("small", 1), ("none", 0)]);
            free.by_type().map(|(_, tasks)| tasks).collect::<Vec<_>>()
        };
        assert_eq!(of(8), [2, 8, 9]);
        assert_eq!(of(3), [1, 3, 9]);
        assert_eq!(of(0), [0, 0, 9]);
    }
}
