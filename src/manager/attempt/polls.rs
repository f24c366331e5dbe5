//! Keeps a task whose polls take long from holding up the tasks that wait behind it.
//!
//! Each worker of the tasks' runtime has a queue of tasks to poll, and only a poll that returns lets
//! the next one begin. A task that computes between two awaits is therefore polled inside
//! `block_in_place` once that shows: the worker's queue goes to another thread first.

use std::num::NonZero;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::block_in_place;
use tokio_util::sync::PollSemaphore;
use tracing::warn;

/// Polls below this harm nobody, however many: all tasks take turns. Timers are coarser than that.
const LONG_POLL: Duration = Duration::from_millis(10);
/// Time in long polls after which a task counts as slow. Less could be the doing of a busy machine.
const MOST_LONG_POLLS: Duration = Duration::from_millis(100);

/// The threads that poll slow tasks, as many as there are cores: with more they would only take turns
/// on the cores, at the expense of everything else. Further slow tasks wait for one of them.
#[derive(Clone, Debug)]
pub(super) struct SlowThreads(Arc<Semaphore>);

impl SlowThreads {
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }
}

/// The code of a task, with an eye on its polls.
pub(super) struct WatchedPolls<F> {
    code: F,
    in_long_polls: Duration,
    threads: PollSemaphore,
}

impl<F: Future + Unpin> WatchedPolls<F> {
    pub(super) fn new(code: F, threads: &SlowThreads) -> Self {
        let threads = PollSemaphore::new(Arc::clone(&threads.0));
        Self { code, in_long_polls: Duration::ZERO, threads }
    }

    fn is_slow(&self) -> bool {
        self.in_long_polls >= MOST_LONG_POLLS
    }
}

impl<F: Future + Unpin> Future for WatchedPolls<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.is_slow() {
            // `None` only if the semaphore was closed, which never happens.
            let _thread = ready!(self.threads.poll_acquire(context));
            return block_in_place(|| Pin::new(&mut self.code).poll(context));
        }
        let began = Instant::now();
        let polled = Pin::new(&mut self.code).poll(context);
        let took = began.elapsed();
        if took >= LONG_POLL {
            self.in_long_polls += took;
            if self.is_slow() {
                // The span of the task adds its id and type.
                warn!(
                    ?took,
                    "the task computes or blocks between two awaits and is polled apart from now on: \
                     such work belongs in run_blocking"
                );
            }
        }
        polled
    }
}
