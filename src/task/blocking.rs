//! CPU-bound work: a bounded number of slots for all tasks, and a tally of what each attempt has
//! running in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The slots that all attempts share for CPU-bound closures (`--cpu-slots`).
///
/// A thread whose attempt was given up keeps its slot until it ends. While such abandoned threads
/// hold every slot, as many more are lent, once, so that a careless task does not take the CPU away
/// from all others. When abandoned threads hold those as well, closures wait.
#[derive(Clone, Debug)]
pub struct CpuSlots(Arc<Shared>);

/// Closures take permits from the semaphore; its permits, free and taken, are `total`, `total` more
/// while slots are lent, and `owed` more while lent slots that are still in use are called back.
/// `ledger` guards every change of their number.
#[derive(Debug)]
struct Shared {
    semaphore: Arc<Semaphore>,
    total: usize,
    waiting: AtomicUsize,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Closures that run although their attempt was given up.
    abandoned: usize,
    lent: bool,
    /// Permits to destroy when they are given back.
    owed: usize,
}

impl CpuSlots {
    /// Slots for that many closures at once.
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Shared {
            semaphore: Arc::new(Semaphore::new(total)),
            total,
            waiting: AtomicUsize::new(0),
            ledger: Mutex::default(),
        }))
    }

    /// Number of slots, without those that are lent.
    pub fn total(&self) -> usize {
        self.0.total
    }

    /// Number of closures that still run after their attempt was given up.
    pub fn abandoned(&self) -> usize {
        self.0.ledger.lock().abandoned
    }

    /// Whether abandoned threads hold every slot, the lent ones too, so that closures have to wait.
    pub(crate) fn exhausted(&self) -> bool {
        self.abandoned() >= 2 * self.0.total
    }

    /// Whether somebody waits for a slot.
    pub(super) fn wanted(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn try_acquire(&self) -> Option<CpuSlot> {
        let permit = Arc::clone(&self.0.semaphore).try_acquire_owned().ok()?;
        Some(CpuSlot { permit: Some(permit), slots: self.clone() })
    }

    pub(super) async fn acquire(&self) -> CpuSlot {
        let _waiting = Counted::new(&self.0.waiting);
        let acquired = Arc::clone(&self.0.semaphore).acquire_owned().await;
        let permit = acquired.expect("the semaphore of the CPU slots is never closed");
        CpuSlot { permit: Some(permit), slots: self.clone() }
    }
}

impl Shared {
    /// Changes the number of abandoned closures, and lends or calls back slots accordingly.
    fn change_abandoned(&self, change: impl FnOnce(usize) -> usize) {
        let mut ledger = self.ledger.lock();
        ledger.abandoned = change(ledger.abandoned);
        let lend = ledger.abandoned >= self.total;
        if lend == ledger.lent {
            return;
        }
        ledger.lent = lend;
        if lend {
            // What is still owed counts as lent again.
            self.semaphore.add_permits(self.total - std::mem::take(&mut ledger.owed));
        } else {
            ledger.owed = self.total - self.semaphore.forget_permits(self.total);
        }
    }
}

/// A slot in use. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct CpuSlot {
    permit: Option<OwnedSemaphorePermit>,
    slots: CpuSlots,
}

impl Drop for CpuSlot {
    fn drop(&mut self) {
        let mut ledger = self.slots.0.ledger.lock();
        if ledger.owed > 0 {
            ledger.owed -= 1;
            self.permit.take().into_iter().for_each(OwnedSemaphorePermit::forget);
        } else {
            // Under the lock: a slot that is called back meanwhile must find it free, or owed.
            self.permit = None;
        }
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
///
/// `running` is published to whoever waits for the end of all; `given_up` guards the count of
/// abandoned closures: a closure that begins or ends sees whether it belongs there.
#[derive(Debug)]
pub(crate) struct BlockingWork {
    running: watch::Sender<usize>,
    given_up: Mutex<bool>,
    slots: CpuSlots,
}

impl BlockingWork {
    pub(crate) fn new(slots: CpuSlots) -> Self {
        Self { running: watch::Sender::new(0), given_up: Mutex::new(false), slots }
    }

    pub(super) fn slots(&self) -> &CpuSlots {
        &self.slots
    }

    /// Counts a closure in; the guard that travels with it counts it out.
    pub(super) fn begin(self: &Arc<Self>, slot: CpuSlot) -> RunningClosure {
        let given_up = self.given_up.lock();
        if *given_up {
            self.slots.0.change_abandoned(|abandoned| abandoned + 1);
        }
        self.running.send_modify(|running| *running += 1);
        drop(given_up);
        RunningClosure { work: Arc::clone(self), _slot: slot }
    }

    /// Waits until no closure of this attempt runs any more.
    pub(crate) async fn finished(&self) {
        // Cannot fail: the sender is right here.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// Counts what still runs, and what begins from now on, as abandoned. Returns the number of
    /// closures that still run. They keep their slots.
    pub(crate) fn abandon(&self) -> usize {
        let mut given_up = self.given_up.lock();
        *given_up = true;
        let running = *self.running.borrow();
        self.slots.0.change_abandoned(|abandoned| abandoned + running);
        running
    }
}

/// Stands for one closure while it runs.
#[derive(Debug)]
pub(super) struct RunningClosure {
    work: Arc<BlockingWork>,
    _slot: CpuSlot,
}

impl Drop for RunningClosure {
    fn drop(&mut self) {
        let given_up = self.work.given_up.lock();
        if *given_up {
            self.work.slots.0.change_abandoned(|abandoned| abandoned - 1);
        }
        self.work.running.send_modify(|running| *running -= 1);
    }
}

/// How long an attempt has waited for CPU slots or memory, which its timeout does not count.
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
        let waited = self.0.lock();
        waited.before + waited.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Counts the time until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Waiting {
        let mut waited = self.0.lock();
        waited.waiting += 1;
        waited.since.get_or_insert_with(Instant::now);
        drop(waited);
        Waiting(Arc::clone(self))
    }
}

/// A wait under way.
#[derive(Debug)]
pub(super) struct Waiting(Arc<SlotWait>);

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waited = self.0.0.lock();
        waited.waiting -= 1;
        if waited.waiting == 0
            && let Some(since) = waited.since.take()
        {
            waited.before += since.elapsed();
        }
    }
}
