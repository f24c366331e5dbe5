//! Isolation of tasks with long polls, so that they do not hold up the tasks behind them.
//!
//! Each worker of the tasks' runtime polls the tasks of its queue one after the other. Once a task is
//! seen to compute or block between two awaits, it is polled inside `block_in_place`, which hands the
//! worker's queue to another thread first.

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

/// Shorter polls are harmless in any number, because tasks take turns.
const LONG_POLL: Duration = Duration::from_millis(10);
/// Total time in long polls after which a task is slow. A busy machine alone can cause less.
const MOST_LONG_POLLS: Duration = Duration::from_millis(100);

/// Permits to poll slow tasks, one per core, shared by all attempts; each is held during one poll. More
/// threads would only compete for the cores.
#[derive(Clone, Debug)]
pub(super) struct SlowThreads(Arc<Semaphore>);

impl SlowThreads {
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }
}

/// The code of a task, with its polls timed.
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
            // `None` only if the semaphore is closed, which never happens.
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
                    "the task computes or blocks between two awaits, isolating its polls: move such work \
                     to run_blocking"
                );
            }
        }
        polled
    }
}
