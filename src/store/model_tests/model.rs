//! The model: what a store should hold, and tell, after any moves. It is slow, plain, and knows
//! nothing of SQL, batches of statements or flags that spare a look.

use std::collections::BTreeMap;

use super::moves::{Change, End, LIMITS, Move, NewTask, OUTPUTS, Start};
use super::told::{Answer, News, Restart, Told};
use crate::store::CancelEffect;
use crate::store::record::{CANCELLED_MESSAGE, RUNNING_MESSAGE};
use crate::task::TaskStatus;

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// By `seq`.
    pub(super) tasks: BTreeMap<i64, Task>,
    /// How many tasks were ever stored.
    pub(super) stored: i64,
    /// Idempotency keys.
    pub(super) keys: BTreeMap<u8, Key>,
    /// How many moves were made.
    pub(super) moves: usize,
    /// What the last move led to.
    pub(super) told: Told,
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) new: NewTask,
    pub(super) status: TaskStatus,
    /// Whether it takes the place of a running task.
    pub(super) has_place: bool,
    /// Whether it waits for a time.
    pub(super) due: bool,
    pub(super) held: bool,
    pub(super) attempt: u32,
    pub(super) interruptions: i64,
    pub(super) epoch: i64,
    pub(super) progress: f64,
    pub(super) message: String,
    pub(super) has_result: bool,
    pub(super) has_error: bool,
    pub(super) cancel_requested: bool,
    pub(super) retried_by: Option<i64>,
    /// The move in which it ended.
    pub(super) ended: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) seq: i64,
    pub(super) body: u8,
    /// The move in which it was used.
    used: usize,
}

impl Model {
    pub(super) fn make(&mut self, next: &Move) {
        self.told = Told::default();
        match next {
            Move::Changes(changes) => self.change(changes),
            Move::Crash(changes) => {
                self.change(changes);
                self.start();
            }
            Move::Stop => {
                let running = self.tasks.iter().filter(|(_, task)| task.has_place);
                let stopped: Vec<_> =
                    running.map(|(&seq, task)| (seq, task.epoch, task.end_of_stop())).collect();
                for &(seq, epoch, end) in &stopped {
                    self.end(seq, epoch, end);
                }
                self.told.stopped = stopped;
                self.start();
            }
        }
        self.moves += 1;
    }

    /// Changes that wait together are one transaction, but that one has room for a key only once.
    fn change(&mut self, changes: &[Change]) {
        let mut first = 0;
        for next in 1..changes.len() {
            let known = changes[first..next].iter().filter_map(Change::key);
            if changes[next].key().is_some_and(|key| known.into_iter().any(|it| it == key)) {
                self.commit(&changes[first..next]);
                first = next;
            }
        }
        self.commit(&changes[first..]);
    }

    /// One transaction: each kind of change in its turn, with claims before new tasks and after them.
    fn commit(&mut self, changes: &[Change]) {
        let before = self.told.answers.len();
        self.told.answers.resize(before + changes.len(), Answer::Done);
        let mut cancelled = BTreeMap::new();
        for change in changes {
            if let &Change::Progress { seq, epoch, percent } = change
                && let Some(task) = self.owned(seq, epoch)
            {
                task.progress = f64::from(percent);
                task.message = format!("at {percent}");
            }
        }
        for change in changes {
            if let &Change::End { seq, epoch, end } = change {
                self.end(seq, epoch, end);
            }
        }
        for change in changes {
            let Change::Promote(seqs) = change else { continue };
            for seq in seqs {
                if let Some(task) = self.tasks.get_mut(seq)
                    && task.status == TaskStatus::Pending
                {
                    task.due = false;
                }
            }
        }
        for change in changes {
            if let &Change::Cancel { seq, .. } = change {
                let accepted = changes.iter().any(
                    |it| matches!(it, Change::Cancel { seq: of, accepted: true } if *of == seq),
                );
                // Who asks twice at once is told the same twice.
                cancelled.entry(seq).or_insert_with(|| self.cancel(seq, accepted));
            }
        }
        for change in changes {
            if let &Change::Erase { before, keys_before } = change {
                self.erase(before, keys_before);
            }
        }
        let news = self.claim();
        self.told.news.extend(news);
        for (index, change) in changes.iter().enumerate() {
            self.told.answers[before + index] = match change {
                Change::Submit(new) => self.submit(new.clone()),
                Change::Cancel { seq, .. } => Answer::Cancel(cancelled[seq]),
                _ => continue,
            };
        }
        let news = self.claim();
        self.told.news.extend(news);
    }

    /// The task, if this attempt owns it.
    fn owned(&mut self, seq: i64, epoch: i64) -> Option<&mut Task> {
        let task = self.tasks.get_mut(&seq)?;
        (task.status == TaskStatus::Running && task.epoch == epoch).then_some(task)
    }

    fn end(&mut self, seq: i64, epoch: i64, end: End) {
        let moves = self.moves;
        let status = end.status();
        let (mut is_owned, mut is_stored) = (false, false);
        if let Some(task) = self.owned(seq, epoch) {
            // Stored or not: the attempt is over.
            task.has_place = false;
            if !task.cancel_requested || end == End::Cancelled {
                task.status = status;
                task.progress = end.progress();
                task.message = end.message().to_owned();
                task.has_result = end == End::Completed;
                task.has_error = end.has_error();
                task.due = end == End::Retry;
                task.held = end == End::SetAside;
                task.attempt -= u32::from(end.gives_back());
                task.cancel_requested = end == End::Cancelled;
                task.ended = status.is_final().then_some(moves);
                (is_owned, is_stored) = (true, true);
            }
        } else if let Some(task) = self.tasks.get(&seq) {
            // An end that is told again because the first answer was lost.
            is_stored = task.epoch == epoch && task.status == status;
        }
        self.told.late_end |= !is_owned;
        self.told.news.push(if is_stored { News::Ended(seq) } else { News::Disowned(seq) });
    }

    fn cancel(&mut self, seq: i64, accepted: bool) -> CancelEffect {
        let Some(task) = self.tasks.get_mut(&seq) else { return CancelEffect::Unknown };
        match task.status {
            TaskStatus::Pending => {
                task.status = TaskStatus::Cancelled;
                task.message = CANCELLED_MESSAGE.to_owned();
                (task.cancel_requested, task.due, task.held) = (true, false, false);
                task.ended = Some(self.moves);
                self.told.news.push(News::Cancelled(seq));
                CancelEffect::Cancelled { seq }
            }
            TaskStatus::Running if accepted => {
                task.cancel_requested = true;
                CancelEffect::Requested
            }
            TaskStatus::Running => CancelEffect::NotAccepted,
            status => CancelEffect::AlreadyFinal(status),
        }
    }

    fn erase(&mut self, before: Option<usize>, keys_before: usize) {
        let before = before.unwrap_or(0).min(self.moves);
        self.tasks.retain(|_, task| task.ended.is_none_or(|ended| ended >= before));
        // A key lives its time, whatever became of its task.
        let keys_before = keys_before.min(self.moves);
        self.keys.retain(|_, key| key.used >= keys_before);
    }

    fn submit(&mut self, mut new: NewTask) -> Answer {
        if let Some(known) = new.key.and_then(|(key, _)| self.keys.get(&key)) {
            return Answer::Replayed(known.seq, known.body);
        }
        new.retry = new.retry.filter(|&(of, _)| of > 0);
        let retried = |of| self.tasks.get(&of).is_some_and(|task| task.retried_by.is_some());
        if new.retry.is_some_and(|(of, only_first)| only_first && retried(of)) {
            return Answer::RetriedBefore;
        }
        let same_output = |task: &Task| {
            !task.status.is_final() && new.output.is_some() && task.new.output == new.output
        };
        if let Some((&owner, _)) = self.tasks.iter().find(|(_, task)| same_output(task)) {
            return Answer::OutputInUse(owner);
        }
        let overlaps = |task: &Task| {
            let both = task.new.output.zip(new.output);
            let both =
                both.map(|(one, other)| (OUTPUTS[usize::from(one)], OUTPUTS[usize::from(other)]));
            let is_in = |(inner, outer): (&str, &str)| {
                inner.trim_end_matches('/') == outer.trim_end_matches('/')
                    || outer.ends_with('/') && inner.starts_with(outer)
            };
            !task.status.is_final() && both.is_some_and(|(a, b)| is_in((a, b)) || is_in((b, a)))
        };
        if self.tasks.values().any(overlaps) {
            return Answer::OutputOverlaps;
        }
        self.stored += 1;
        let seq = self.stored;
        if let Some((key, body)) = new.key {
            self.keys.insert(key, Key { seq, body, used: self.moves });
        }
        if let Some(retried) = new.retry.and_then(|(of, _)| self.tasks.get_mut(&of)) {
            retried.retried_by = Some(seq);
        }
        let due = new.start != Start::AtOnce;
        if due {
            self.told.news.push(News::Scheduled(seq));
        }
        self.tasks.insert(seq, Task::new(new, due));
        Answer::Stored(seq)
    }

    /// Ready tasks run while there are places: the highest priority first, then in the order of
    /// submission; but first of all one that may be what killed the server.
    fn claim(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        loop {
            let has_room = |task: &Task| {
                let of = |kind| self.placed().filter(|it| it.new.kind == kind).count();
                self.placed().count() < LIMITS.0 && of(task.new.kind) < LIMITS.1[task.new.kind]
            };
            let suspect_runs = self.placed().any(Task::is_suspect);
            let may_run = |task: &Task| {
                task.is_ready() && has_room(task) && !(task.is_suspect() && suspect_runs)
            };
            let ready = self.tasks.iter().filter(|(_, task)| may_run(task));
            let first = ready.min_by_key(|(seq, task)| {
                (!task.is_suspect(), std::cmp::Reverse(task.new.priority), **seq)
            });
            let Some((&seq, _)) = first else { return news };
            let Some(task) = self.tasks.get_mut(&seq) else { return news };
            task.status = TaskStatus::Running;
            task.has_place = true;
            task.epoch += 1;
            task.attempt += 1;
            task.progress = 0.0;
            task.message = RUNNING_MESSAGE.to_owned();
            news.push(News::Claimed(seq, task.epoch));
        }
    }

    fn placed(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter(|task| task.has_place)
    }

    /// What is running now was interrupted.
    fn start(&mut self) {
        let mut restart = Restart::default();
        for (&seq, task) in &mut self.tasks {
            task.has_place = false;
            if task.status == TaskStatus::Running {
                let partial = task.new.output.map(|output| (output, seq, task.epoch));
                restart.partials.extend(partial);
                task.interrupt(self.moves);
            }
            if task.held {
                (task.held, task.message) = (false, String::new());
            }
            if task.status == TaskStatus::Pending {
                restart.due.extend(task.due.then_some(seq));
            }
        }
        restart.news = self.claim();
        self.told.restart = restart;
    }

    /// The tasks that wait for nothing but a place, in the order in which they run.
    pub(super) fn queue(&self) -> Vec<i64> {
        let ready = self.tasks.iter().filter(|(_, task)| task.is_ready() && !task.is_suspect());
        let mut ready: Vec<_> =
            ready.map(|(&seq, task)| (std::cmp::Reverse(task.new.priority), seq)).collect();
        ready.sort();
        ready.into_iter().map(|(_, seq)| seq).collect()
    }

    /// The tasks that are wanted, newest first.
    pub(super) fn list(&self, wanted: impl Fn(&Task) -> bool) -> Vec<i64> {
        let tasks = self.tasks.iter().rev().filter(|(_, task)| wanted(task));
        tasks.map(|(&seq, _)| seq).collect()
    }
}

impl Task {
    fn new(new: NewTask, due: bool) -> Self {
        Self {
            new,
            status: TaskStatus::Pending,
            has_place: false,
            due,
            held: false,
            attempt: 0,
            interruptions: 0,
            epoch: 0,
            progress: 0.0,
            message: String::new(),
            has_result: false,
            has_error: false,
            cancel_requested: false,
            retried_by: None,
            ended: None,
        }
    }

    fn is_ready(&self) -> bool {
        self.status == TaskStatus::Pending && !self.due && !self.held
    }

    fn is_suspect(&self) -> bool {
        self.interruptions >= 2
    }

    /// How a stopping server ends this attempt.
    fn end_of_stop(&self) -> End {
        if self.cancel_requested { End::Cancelled } else { End::GivenBack }
    }

    fn interrupt(&mut self, moves: usize) {
        self.interruptions += 1;
        self.attempt -= 1;
        if self.cancel_requested {
            self.status = TaskStatus::Cancelled;
            self.message = CANCELLED_MESSAGE.to_owned();
        } else if self.interruptions >= 3 {
            self.status = TaskStatus::Failed;
            self.message = "Task failed: the server stopped 3 times while this task ran, \
                            so it may be what stops it"
                .to_owned();
            self.has_error = true;
        } else {
            self.status = TaskStatus::Pending;
            self.message = String::new();
            self.progress = 0.0;
        }
        self.ended = self.status.is_final().then_some(moves);
    }
}

impl Change {
    fn key(&self) -> Option<u8> {
        match self {
            Self::Submit(new) => new.key.map(|(key, _)| key),
            _ => None,
        }
    }
}
