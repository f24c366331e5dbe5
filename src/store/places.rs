//! Which tasks run, and how many more may.

use std::collections::HashMap;

use super::TaskRecord;

/// How many tasks may run at once: in all, and of each type that this server knows.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    pub(crate) by_type: Vec<(&'static str, usize)>,
}

/// How many tasks may be claimed: in all, and of each type.
#[derive(Clone, Debug)]
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
        let of_type = self.by_type.iter_mut().find(|(name, _)| *name == task_type);
        match of_type {
            Some((_, free)) if *free > 0 && self.total > 0 => {
                *free -= 1;
                self.total -= 1;
                true
            }
            _ => false,
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
        let task_type = record.info.task_type.clone();
        self.free.take(&task_type);
        let suspect = record.is_suspect();
        self.free.suspect &= !suspect;
        self.running.insert(record.seq, Running { task_type, suspect });
    }

    /// A task runs no more.
    pub(super) fn leave(&mut self, seq: i64) {
        if let Some(task) = self.running.remove(&seq) {
            give_back(&mut self.free, &task);
        }
    }

    /// The places that are free once these tasks have ended.
    pub(super) fn free_after(&self, ended: impl Iterator<Item = i64>) -> Room {
        let mut room = self.free.clone();
        ended.filter_map(|seq| self.running.get(&seq)).for_each(|task| give_back(&mut room, task));
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

fn give_back(room: &mut Room, task: &Running) {
    room.total += 1;
    room.suspect |= task.suspect;
    if let Some((_, free)) = room.by_type.iter_mut().find(|(name, _)| *name == task.task_type) {
        *free += 1;
    }
}
