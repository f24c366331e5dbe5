//! CPU-bound work in parts, on as many threads as there are CPU slots to spare.

use std::collections::VecDeque;
use std::num::NonZero;
use std::panic;
use std::thread::{self, ScopedJoinHandle};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::Span;

use super::{TaskContext, TaskError};

/// Items under way for each thread, those included whose results wait for their turn.
const AHEAD: usize = 2;

/// Bytes of items under way, except that there is always room for one item.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Hands a result of an item on.
type Sender<'a, T> = dyn Fn(T) -> Result<(), TaskError> + 'a;

impl TaskContext {
    /// Works on one item after the other, on several threads where that is possible, and hands the
    /// results on in the order of the items. To be called in [`run_blocking`](Self::run_blocking);
    /// returns when all is done.
    ///
    /// - `next` yields the items, each with its size in bytes, and `None` after the last.
    /// - `worker` is called once on each thread, and what it returns works on items there. For each
    ///   it may send any number of results. To send waits while the previous result of the item
    ///   still waits for its turn, and fails when an earlier item has failed.
    /// - `take` gets the results: all of the first item, then those of the second, and so on.
    ///
    /// The calling thread works itself, in the CPU slot that it has. Others join it while there are
    /// free slots and idle cores, and leave after their item when somebody waits for a slot. Only a
    /// few items and results are in memory at a time, of large items only one.
    ///
    /// # Errors
    /// The error that came up with the earliest item, whichever of the closures it came from, or
    /// [`TaskError::Cancelled`] if the task should stop.
    ///
    /// # Panics
    /// If one of the closures panics; the server turns that into a failure of the task.
    pub fn in_parallel<I, T, W>(
        &self,
        next: impl FnMut() -> Result<Option<(I, usize)>, TaskError> + Send,
        worker: impl Fn() -> W + Sync,
        take: impl FnMut(T) -> Result<(), TaskError> + Send,
    ) -> Result<(), TaskError>
    where
        T: Send,
        W: FnMut(I, &Sender<'_, T>) -> Result<(), TaskError>,
    {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        self.on_threads(cores, next, worker, take)
    }

    fn on_threads<I, T, W>(
        &self,
        threads: usize,
        next: impl FnMut() -> Result<Option<(I, usize)>, TaskError> + Send,
        worker: impl Fn() -> W + Sync,
        mut take: impl FnMut(T) -> Result<(), TaskError> + Send,
    ) -> Result<(), TaskError>
    where
        T: Send,
        W: FnMut(I, &Sender<'_, T>) -> Result<(), TaskError>,
    {
        let next = Mutex::new(next);
        let queue = Queue::new(threads * AHEAD, &mut take);
        let work = |go_on: &mut dyn FnMut() -> bool| {
            let _stop = StopOnPanic(&queue);
            let mut worker = worker();
            while go_on() && self.work_on_next(&next, &mut worker, &queue) {}
        };
        let (work, span) = (&work, Span::current());
        let slots = self.attempt.blocking.slots();
        thread::scope(|scope| {
            let mut helpers: Vec<ScopedJoinHandle<'_, ()>> = Vec::new();
            work(&mut || {
                helpers.extract_if(.., |helper| helper.is_finished()).for_each(join);
                if helpers.len() + 1 < threads
                    && let Some(slot) = slots.try_acquire()
                {
                    let (running, span) = (self.attempt.blocking.begin(slot), span.clone());
                    let helper = thread::Builder::new().spawn_scoped(scope, move || {
                        let _running = running;
                        span.in_scope(|| work(&mut || !slots.wanted()));
                    });
                    // Without a further thread the work goes on all the same.
                    helpers.extend(helper.ok());
                }
                true
            });
            helpers.into_iter().for_each(join);
        });
        queue.into_result()
    }

    /// Works on one item. Returns whether there may be more.
    fn work_on_next<I, T>(
        &self,
        next: &Mutex<impl FnMut() -> Result<Option<(I, usize)>, TaskError>>,
        worker: &mut impl FnMut(I, &Sender<'_, T>) -> Result<(), TaskError>,
        queue: &Queue<'_, T>,
    ) -> bool {
        // Held until the item is there, so that items have their numbers in order.
        let mut next = next.lock();
        let Some(number) = queue.enter() else { return false };
        let item = self.check_cancelled().and_then(|()| next());
        match item {
            Ok(Some((_, bytes))) => queue.make_room(number, bytes),
            Ok(None) | Err(_) => queue.end(),
        }
        drop(next);
        let done = match item {
            Ok(Some((item, _))) => worker(item, &|result| queue.send(number, result)),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        queue.leave(number, done);
        true
    }
}

fn join(helper: ScopedJoinHandle<'_, ()>) {
    if let Err(payload) = helper.join() {
        panic::resume_unwind(payload);
    }
}

/// The items under way, and what becomes of their results.
struct Queue<'a, T> {
    state: Mutex<State<'a, T>>,
    changed: Condvar,
    /// Most items under way.
    limit: usize,
}

struct State<'a, T> {
    /// The first of them is the one whose turn it is.
    items: VecDeque<Item<T>>,
    /// The number of the first one. They count from 1.
    turn: u64,
    /// The sizes of all items together.
    bytes: usize,
    ended: bool,
    /// What to do with results; `None` while a thread does it.
    take: Option<&'a mut Take<'a, T>>,
    /// The earliest item that failed, and why.
    failed: Option<(u64, TaskError)>,
}

type Take<'a, T> = dyn FnMut(T) -> Result<(), TaskError> + Send + 'a;

struct Item<T> {
    bytes: usize,
    result: Option<T>,
    done: bool,
}

impl<'a, T> Queue<'a, T> {
    fn new(limit: usize, take: &'a mut Take<'a, T>) -> Self {
        let take = Some(take);
        let items = VecDeque::with_capacity(limit);
        let state = State { items, turn: 1, bytes: 0, ended: false, take, failed: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), limit }
    }

    /// Waits for room for one more item and returns its number; `None` if there are to be no more.
    fn enter(&self) -> Option<u64> {
        let over = |state: &State<'_, T>| state.ended || state.failed.is_some();
        // To get an item takes memory too, so none is got next to a large one.
        let full = |state: &State<'_, T>| {
            let large = state.items.iter().any(|item| item.bytes > MAX_BYTES / 2);
            large || state.items.len() >= self.limit
        };
        let mut state = self.wait_while(|state| !over(state) && full(state));
        if over(&state) {
            return None;
        }
        state.items.push_back(Item { bytes: 0, result: None, done: false });
        Some(state.turn + state.items.len() as u64 - 1)
    }

    /// Waits until an item of this size may be under way.
    fn make_room(&self, number: u64, bytes: usize) {
        let mut state = self.wait_while(|state| {
            let full = state.bytes > 0 && state.bytes + bytes > MAX_BYTES;
            full && !state.has_failed_by(number)
        });
        state.item(number).bytes = bytes;
        state.bytes += bytes;
    }

    /// Hands on a result of an item under way.
    fn send(&self, number: u64, result: T) -> Result<(), TaskError> {
        let mut state = self.wait_while(|state| {
            !state.has_failed_by(number) && state.item(number).result.is_some()
        });
        if state.has_failed_by(number) {
            return Err(TaskError::Cancelled);
        }
        state.item(number).result = Some(result);
        self.take_what_is_ready(state);
        Ok(())
    }

    /// There are no more items.
    fn end(&self) {
        self.state.lock().ended = true;
    }

    /// An item is done, or has failed.
    fn leave(&self, number: u64, done: Result<(), TaskError>) {
        let mut state = self.state.lock();
        match done {
            Ok(()) => state.item(number).done = true,
            Err(error) => state.fail(number, error),
        }
        self.take_what_is_ready(state);
    }

    fn take_what_is_ready<'s>(&'s self, mut state: MutexGuard<'s, State<'a, T>>) {
        let Some(take) = state.take.take() else { return };
        while !state.has_failed_by(state.turn)
            && let Some(item) = state.items.front_mut()
        {
            if let Some(result) = item.result.take() {
                drop(state);
                let taken = take(result);
                state = self.state.lock();
                if let Err(error) = taken {
                    let turn = state.turn;
                    state.fail(turn, error);
                }
            } else if item.done {
                let bytes = item.bytes;
                state.items.pop_front();
                state.bytes -= bytes;
                state.turn += 1;
            } else {
                break;
            }
            self.changed.notify_all();
        }
        state.take = Some(take);
        self.changed.notify_all();
    }

    fn into_result(self) -> Result<(), TaskError> {
        let state = self.state.into_inner();
        state.failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    fn wait_while(
        &self,
        condition: impl Fn(&mut State<'a, T>) -> bool,
    ) -> MutexGuard<'_, State<'a, T>> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, condition);
        state
    }
}

impl<T> State<'_, T> {
    /// One that has entered and not left.
    fn item(&mut self, number: u64) -> &mut Item<T> {
        &mut self.items[(number - self.turn) as usize]
    }

    fn fail(&mut self, number: u64, error: TaskError) {
        if !self.has_failed_by(number) {
            self.failed = Some((number, error));
        }
    }

    /// Whether this item or an earlier one has failed.
    fn has_failed_by(&self, number: u64) -> bool {
        self.failed.as_ref().is_some_and(|&(failed, _)| failed <= number)
    }
}

/// Lets the other threads end when one panics.
struct StopOnPanic<'q, 'a, T>(&'q Queue<'a, T>);

impl<T> Drop for StopOnPanic<'_, '_, T> {
    fn drop(&mut self) {
        if thread::panicking() {
            // As if something before the first item had failed: nobody goes on.
            self.0.state.lock().fail(0, TaskError::Cancelled);
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;
