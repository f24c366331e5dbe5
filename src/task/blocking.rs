//! CPU-bound work: a bounded number of CPU slots for all tasks, and a count of the closures that
//! each attempt runs in them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// CPU slots that all attempts share (`--cpu-slots`).
///
/// A closure that outlives its attempt is abandoned and keeps its slot until it returns. While
/// abandoned closures hold every slot, the same number is lent, once, so that a misbehaving task
/// does not block all others. When abandoned closures hold those as well, new closures wait.
#[derive(Clone, Debug)]
pub struct CpuSlots(Arc<Shared>);

/// Closures take permits from the semaphore. Its permits, free and taken, are `total`, plus `total`
/// while slots are lent, plus `owed` while recalled slots are still in use. `ledger` guards every
/// change of that number.
#[derive(Debug)]
struct Shared {
    semaphore: Arc<Semaphore>,
    total: usize,
    /// Cloned by each closure that waits for a slot: its references count the waiters.
    waiting: Arc<()>,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Number of closures that outlived their attempt.
    abandoned: usize,
    lent: bool,
    /// Permits to destroy when they are returned.
    owed: usize,
}

impl CpuSlots {
    /// Slots for `total` closures at once.
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Shared {
            semaphore: Arc::new(Semaphore::new(total)),
            total,
            waiting: Arc::default(),
            ledger: Mutex::default(),
        }))
    }

    /// Number of slots, excluding lent ones.
    pub fn total(&self) -> usize {
        self.0.total
    }

    /// Number of running closures that outlived their attempt.
    pub fn abandoned(&self) -> usize {
        self.0.ledger.lock().abandoned
    }

    /// Returns whether abandoned closures hold all slots, including lent ones, so that others wait.
    pub(crate) fn exhausted(&self) -> bool {
        self.abandoned() >= 2 * self.0.total
    }

    /// Returns whether a closure waits for a slot.
    pub(super) fn wanted(&self) -> bool {
        Arc::strong_count(&self.0.waiting) > 1
    }

    pub(super) fn try_acquire(&self) -> Option<CpuSlot> {
        let permit = Arc::clone(&self.0.semaphore).try_acquire_owned().ok()?;
        Some(CpuSlot { permit: Some(permit), slots: self.clone() })
    }

    pub(super) async fn acquire(&self) -> CpuSlot {
        let _waiting = Arc::clone(&self.0.waiting);
        let acquired = Arc::clone(&self.0.semaphore).acquire_owned().await;
        let permit = acquired.expect("the semaphore of the CPU slots is never closed");
        CpuSlot { permit: Some(permit), slots: self.clone() }
    }

    /// Takes that many slots, if they are free.
    pub(super) fn try_reserve(&self, slots: usize) -> Option<ReservedCpus> {
        let permits = u32::try_from(slots).ok()?;
        let permit = Arc::clone(&self.0.semaphore).try_acquire_many_owned(permits).ok()?;
        Some(self.split(permit, slots))
    }

    /// Waits for that many slots at once, before whoever asks later.
    pub(super) async fn reserve(&self, slots: usize) -> ReservedCpus {
        let _waiting = Arc::clone(&self.0.waiting);
        let permits = u32::try_from(slots).unwrap_or(u32::MAX);
        let acquired = Arc::clone(&self.0.semaphore).acquire_many_owned(permits).await;
        self.split(acquired.expect("the semaphore of the CPU slots is never closed"), slots)
    }

    fn split(&self, mut permit: OwnedSemaphorePermit, slots: usize) -> ReservedCpus {
        let one = |_| CpuSlot { permit: permit.split(1), slots: self.clone() };
        ReservedCpus { _slots: (0..slots).map(one).collect() }
    }

    /// Changes the number of abandoned closures, and lends or recalls slots accordingly.
    fn change_abandoned(&self, change: isize) {
        let Shared { semaphore, total, ledger, .. } = &*self.0;
        let mut ledger = ledger.lock();
        ledger.abandoned = ledger.abandoned.saturating_add_signed(change);
        let lend = ledger.abandoned >= *total;
        if lend == ledger.lent {
            return;
        }
        ledger.lent = lend;
        if lend {
            // Owed permits count as lent again.
            semaphore.add_permits(total - std::mem::take(&mut ledger.owed));
        } else {
            ledger.owed = total - semaphore.forget_permits(*total);
        }
    }
}

/// A slot in use. Dropping it returns it.
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
            // Released under the lock, so that a concurrent recall finds it either free or in use.
            self.permit = None;
        }
    }
}

/// CPU slots that an attempt holds outside of closures. Dropping it returns them.
#[derive(Debug)]
pub(crate) struct ReservedCpus {
    _slots: Vec<CpuSlot>,
}

/// The running closures of one attempt.
///
/// Closures update `closures` when they begin and end, the runner when it abandons them. Each
/// update happens inside `send_modify`, whose lock keeps the count of abandoned closures in step.
#[derive(Debug)]
pub(crate) struct BlockingWork {
    closures: watch::Sender<Closures>,
    slots: CpuSlots,
}

#[derive(Debug, Default)]
struct Closures {
    running: usize,
    abandoned: bool,
}

impl BlockingWork {
    pub(crate) fn new(slots: CpuSlots) -> Self {
        Self { closures: watch::Sender::default(), slots }
    }

    pub(super) fn slots(&self) -> &CpuSlots {
        &self.slots
    }

    /// Counts a closure until the returned guard is dropped.
    pub(super) fn begin(self: &Arc<Self>, slot: CpuSlot) -> RunningClosure {
        self.change_running(1);
        RunningClosure { work: Arc::clone(self), _slot: slot }
    }

    fn change_running(&self, change: isize) {
        self.closures.send_modify(|closures| {
            closures.running = closures.running.saturating_add_signed(change);
            if closures.abandoned {
                self.slots.change_abandoned(change);
            }
        });
    }

    /// Resolves when no closure of this attempt is running.
    pub(crate) async fn finished(&self) {
        // Cannot fail: `self` keeps the sender alive.
        let _ = self.closures.subscribe().wait_for(|closures| closures.running == 0).await;
    }

    /// Counts the running closures, and those that begin later, as abandoned. They keep their
    /// slots. Returns the number of running closures.
    pub(crate) fn abandon(&self) -> usize {
        let mut running = 0;
        self.closures.send_modify(|closures| {
            closures.abandoned = true;
            running = closures.running;
            self.slots.change_abandoned(running as isize);
        });
        running
    }
}

/// Guard of a running closure and its slot.
#[derive(Debug)]
pub(super) struct RunningClosure {
    work: Arc<BlockingWork>,
    _slot: CpuSlot,
}

impl Drop for RunningClosure {
    fn drop(&mut self) {
        self.work.change_running(-1);
    }
}

/// Time that an attempt has waited for CPU slots or memory, which its timeout excludes.
#[derive(Debug, Default)]
pub(crate) struct SlotWait(Mutex<Waited>);

#[derive(Debug, Default)]
struct Waited {
    before: Duration,
    waiting: usize,
    since: Option<Instant>,
}

impl SlotWait {
    /// Total so far, including a current wait.
    pub(crate) fn total(&self) -> Duration {
        let waited = self.0.lock();
        waited.before + waited.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Counts the time until the returned guard is dropped. Concurrent waits count once.
    pub(super) fn begin(self: &Arc<Self>) -> Waiting {
        let mut waited = self.0.lock();
        waited.waiting += 1;
        waited.since.get_or_insert_with(Instant::now);
        drop(waited);
        Waiting(Arc::clone(self))
    }
}

/// Guard of a current wait.
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
