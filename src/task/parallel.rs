//! CPU-bound work in parts, on as many threads as there are spare CPU slots.

use std::collections::VecDeque;
use std::num::NonZero;
use std::panic;
use std::thread::{self, ScopedJoinHandle};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::Span;

use super::{TaskContext, TaskError};

/// Items in flight per thread, including those whose results wait for their turn.
const AHEAD: usize = 2;

/// Limit in bytes for the items in flight; a single item may exceed it.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Sends a result of an item to `take`.
type Sender<'a, T> = dyn Fn(T) -> Result<(), TaskError> + 'a;

impl TaskContext {
    /// Processes items on several threads where possible, and delivers the results in the order of
    /// the items. Call it inside [`run_blocking`](Self::run_blocking); it returns when all items
    /// are done.
    ///
    /// - `next` yields the items, each with its size in bytes, and `None` after the last.
    /// - `worker` is called once per thread and returns a function that processes items there. That
    ///   function may send any number of results per item. Sending blocks while the previous result of
    ///   the item waits for its turn, and fails once an earlier item has failed.
    /// - `take` receives the results: all those of the first item, then those of the second, and so on.
    ///
    /// The calling thread works in the CPU slot that it holds. Further threads join while there are
    /// free slots and idle cores, and leave after their current item when a closure waits for a
    /// slot. Only a few items and results are in memory at a time, and only one large item.
    ///
    /// # Errors
    /// The error of the earliest failed item, from any of the closures, or [`TaskError::Cancelled`]
    /// if the task is asked to stop.
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
                    // The work goes on without a helper.
                    helpers.extend(helper.ok());
                }
                true
            });
            helpers.into_iter().for_each(join);
        });
        let failed = queue.state.into_inner().failed;
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Processes one item. Returns whether there may be more.
    fn work_on_next<I, T>(
        &self,
        next: &Mutex<impl FnMut() -> Result<Option<(I, usize)>, TaskError>>,
        worker: &mut impl FnMut(I, &Sender<'_, T>) -> Result<(), TaskError>,
        queue: &Queue<'_, T>,
    ) -> bool {
        // Held until the item is there, so that items are numbered in order.
        let mut next = next.lock();
        let Some(number) = queue.enter() else { return false };
        let item = self.check_cancelled().and_then(|()| next());
        match item {
            Ok(Some((_, bytes))) => queue.make_room(number, bytes),
            Ok(None) | Err(_) => queue.state.lock().ended = true,
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

/// Items in flight and their pending results.
///
/// All threads update `state` and notify `changed`. The thread that takes `take` out of the state
/// delivers results, without holding the lock.
struct Queue<'a, T> {
    state: Mutex<State<'a, T>>,
    changed: Condvar,
    /// Limit for the items in flight.
    limit: usize,
}

struct State<'a, T> {
    /// The first item is the one whose turn it is.
    items: VecDeque<Item<T>>,
    /// Number of the first item, counting from 1.
    turn: u64,
    /// Total size of the items.
    bytes: usize,
    /// `true` once `next` has no more items.
    ended: bool,
    /// Consumer of the results; `None` while a thread runs it.
    take: Option<&'a mut Take<'a, T>>,
    /// The earliest failed item, and its error.
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

    /// Waits for room for one more item. Returns its number, or `None` if there are no more.
    fn enter(&self) -> Option<u64> {
        let over = |state: &State<'_, T>| state.ended || state.failed.is_some();
        // Reading an item takes memory too, so none is read beside a large one.
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

    /// Waits until an item of this size fits.
    fn make_room(&self, number: u64, bytes: usize) {
        let mut state = self.wait_while(|state| {
            let full = state.bytes > 0 && state.bytes + bytes > MAX_BYTES;
            full && !state.has_failed_by(number)
        });
        state.item(number).bytes = bytes;
        state.bytes += bytes;
    }

    /// Stores a result of an item, and delivers it if it is the item's turn.
    fn send(&self, number: u64, result: T) -> Result<(), TaskError> {
        let mut state = self.wait_while(|state| {
            !state.has_failed_by(number) && state.item(number).result.is_some()
        });
        if state.has_failed_by(number) {
            return Err(TaskError::Cancelled);
        }
        state.item(number).result = Some(result);
        self.deliver(state);
        Ok(())
    }

    /// Marks an item as done or failed.
    fn leave(&self, number: u64, done: Result<(), TaskError>) {
        let mut state = self.state.lock();
        match done {
            Ok(()) => state.item(number).done = true,
            Err(error) => state.fail(number, error),
        }
        self.deliver(state);
    }

    /// Delivers all results whose turn it is, unless another thread is doing so.
    fn deliver<'s>(&'s self, mut state: MutexGuard<'s, State<'a, T>>) {
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
    /// Returns an item in flight.
    fn item(&mut self, number: u64) -> &mut Item<T> {
        &mut self.items[(number - self.turn) as usize]
    }

    fn fail(&mut self, number: u64, error: TaskError) {
        if !self.has_failed_by(number) {
            self.failed = Some((number, error));
        }
    }

    /// Returns whether this item or an earlier one has failed.
    fn has_failed_by(&self, number: u64) -> bool {
        self.failed.as_ref().is_some_and(|&(failed, _)| failed <= number)
    }
}

/// Ends the other threads when one panics.
struct StopOnPanic<'q, 'a, T>(&'q Queue<'a, T>);

impl<T> Drop for StopOnPanic<'_, '_, T> {
    fn drop(&mut self) {
        if thread::panicking() {
            // Item 0 precedes all others, so every thread stops.
            self.0.state.lock().fail(0, TaskError::Cancelled);
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;
