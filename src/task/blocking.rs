//! CPU-bound work: a bounded number of slots for all tasks, and a tally of what each attempt has
//! running in them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The slots that all attempts share for CPU-bound closures (`--cpu-slots`).
#[derive(Clone, Debug)]
pub struct CpuSlots {
    semaphore: Arc<Semaphore>,
    total: usize,
    waiting: Arc<AtomicUsize>,
    abandoned: Arc<AtomicUsize>,
}

impl CpuSlots {
    /// That many closures run at once.
    pub fn new(total: usize) -> Self {
        Self {
            semaphore: Arc::new(Semaphore::new(total)),
            total,
            waiting: Arc::default(),
            abandoned: Arc::default(),
        }
    }

    /// How many slots there are.
    pub fn total(&self) -> usize {
        self.total
    }

    /// How many closures still run after their attempt was given up.
    pub fn abandoned(&self) -> usize {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Whether somebody waits for a slot.
    pub(super) fn wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).try_acquire_owned().ok()
    }

    pub(super) async fn acquire(&self) -> OwnedSemaphorePermit {
        let _waiting = Counted::new(&self.waiting);
        let acquired = Arc::clone(&self.semaphore).acquire_owned().await;
        acquired.expect("the semaphore of the CPU slots is never closed")
    }
}

/// Counts as one until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The closures that one attempt has running.
#[derive(Debug)]
pub(crate) struct BlockingWork {
    closures: Mutex<Closures>,
    count: watch::Sender<usize>,
    slots: CpuSlots,
}

#[derive(Debug, Default)]
struct Closures {
    next: u64,
    /// The slot of each closure; `None` once it was taken away.
    running: HashMap<u64, Option<OwnedSemaphorePermit>>,
}

impl BlockingWork {
    pub(crate) fn new(slots: CpuSlots) -> Self {
        Self { closures: Mutex::default(), count: watch::Sender::new(0), slots }
    }

    pub(super) fn slots(&self) -> &CpuSlots {
        &self.slots
    }

    /// Counts a closure in; the guard that travels with it counts it out.
    pub(super) fn begin(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> RunningClosure {
        let mut closures = self.lock();
        let number = closures.next;
        closures.next += 1;
        closures.running.insert(number, Some(permit));
        drop(closures);
        self.count.send_modify(|count| *count += 1);
        RunningClosure { work: Arc::clone(self), number }
    }

    /// Waits until no closure of this attempt runs any more.
    pub(crate) async fn finished(&self) {
        // Cannot fail: the sender is right here.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Gives the slots of whatever still runs back to others and counts the threads as abandoned.
    /// Returns how many there were.
    pub(crate) fn abandon(&self) -> usize {
        let mut closures = self.lock();
        let given_up = closures.running.values_mut().filter_map(Option::take).count();
        self.slots.abandoned.fetch_add(given_up, Ordering::Relaxed);
        given_up
    }

    fn lock(&self) -> MutexGuard<'_, Closures> {
        self.closures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands for one closure while it runs.
#[derive(Debug)]
pub(super) struct RunningClosure {
    work: Arc<BlockingWork>,
    number: u64,
}

impl Drop for RunningClosure {
    fn drop(&mut self) {
        if let Some(None) = self.work.lock().running.remove(&self.number) {
            self.work.slots.abandoned.fetch_sub(1, Ordering::Relaxed);
        }
        self.work.count.send_modify(|count| *count -= 1);
    }
}

/// How long an attempt has waited for CPU slots, which its timeout does not count.
#[derive(Debug, Default)]
pub(crate) struct SlotWait(Mutex<Waited>);

#[derive(Debug, Default)]
struct Waited {
    before: Duration,
    waiting: usize,
    since: Option<Instant>,
}

impl SlotWait {
    /// The sum so far, a wait under way included.
    pub(crate) fn total(&self) -> Duration {
        let waited = self.lock();
        waited.before + waited.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Counts the time until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Waiting {
        let mut waited = self.lock();
        waited.waiting += 1;
        waited.since.get_or_insert_with(Instant::now);
        drop(waited);
        Waiting(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, Waited> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait under way.
#[derive(Debug)]
pub(super) struct Waiting(Arc<SlotWait>);

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waited = self.0.lock();
        waited.waiting -= 1;
        if waited.waiting == 0
            && let Some(since) = waited.since.take()
        {
            waited.before += since.elapsed();
        }
    }
}
