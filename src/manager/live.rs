//! Tasks that this server has claimed: they are served from memory, and cancelled there first.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::events::Stamp;
use crate::store::{AttemptEnd, StoreError, TaskRecord};
use crate::task::{
    BlockingWork, CpuSlots, OutputFile, Progress, SlotWait, TaskId, TaskInfo, Timestamp,
};

/// One claimed task, from its claim to the commit of its end.
#[derive(Debug)]
pub(super) struct LiveTask {
    pub(super) seq: i64,
    pub(super) epoch: i64,
    /// The record as it was claimed.
    pub(super) claimed: Arc<TaskInfo>,
    pub(super) progress: Arc<Progress>,
    /// Tells the task's code to stop.
    pub(super) token: CancellationToken,
    /// Cancelled when the end of the attempt is committed.
    pub(super) over: CancellationToken,
    /// Why the end of the attempt was not stored when that was tried last.
    refused: watch::Sender<Option<StoreError>>,
    pub(super) blocking: Arc<BlockingWork>,
    pub(super) slot_wait: Arc<SlotWait>,
    /// What the task has created to be published.
    pub(super) output: Arc<Mutex<Option<OutputFile>>>,
    /// What runs the task's code, until somebody waits for it.
    code: Mutex<Option<JoinHandle<()>>>,
    ended: AtomicBool,
    phase: Mutex<Phase>,
    rendered: Mutex<Option<Cached>>,
    /// The version of the progress that was stored last.
    stored_version: AtomicU64,
    /// What streams were told last.
    told: Mutex<Stamp>,
}

/// Decides between completion and cancellation: whoever comes first under the lock wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    CancelRequested(Timestamp),
    /// The end is being published and committed; it is too late to cancel.
    Finishing,
}

/// What a rendering depends on, beside what never changes while a task is live.
type RenderKey = (u64, Option<Timestamp>);

/// A task as JSON, made once per change.
#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    pub(crate) json: Bytes,
    /// Equal for equal JSON.
    pub(crate) tag: u64,
    pub(crate) is_final: bool,
}

impl Rendered {
    pub(super) fn new(info: &TaskInfo) -> Self {
        let json = serde_json::to_vec(info).expect("a task has no keys that JSON cannot express");
        let mut hasher = DefaultHasher::new();
        hasher.write(&json);
        Self { json: json.into(), tag: hasher.finish(), is_final: info.status.is_final() }
    }
}

/// The answer of a live task to a request for cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CancelRequest {
    Accepted,
    TooLate,
}

impl LiveTask {
    pub(super) fn new(record: TaskRecord, slots: CpuSlots) -> Self {
        let progress = Progress::new(&record.info.message, record.info.updated_at);
        let told = Stamp::of(record.epoch, record.info.status);
        Self {
            seq: record.seq,
            epoch: record.epoch,
            claimed: Arc::new(record.info),
            progress: Arc::new(progress),
            token: CancellationToken::new(),
            over: CancellationToken::new(),
            refused: watch::Sender::new(None),
            blocking: Arc::new(BlockingWork::new(slots)),
            slot_wait: Arc::default(),
            output: Arc::default(),
            code: Mutex::default(),
            ended: AtomicBool::new(false),
            phase: Mutex::new(Phase::Running),
            rendered: Mutex::new(None),
            stored_version: AtomicU64::new(0),
            told: Mutex::new(told),
        }
    }

    /// Notes what runs the task's code.
    pub(super) fn spawned(&self, code: JoinHandle<()>) {
        *self.code.lock() = Some(code);
    }

    /// Takes what runs the task's code, to wait for it or to let go of it.
    pub(super) fn take_code(&self) -> Option<JoinHandle<()>> {
        self.code.lock().take()
    }

    /// Whether the caller is the one to end the attempt: true for the first who asks.
    pub(super) fn take_end(&self) -> bool {
        !self.ended.swap(true, Ordering::Relaxed)
    }

    /// Whether this version of the progress has not been seen by the last call.
    pub(super) fn is_news(&self, version: u64) -> bool {
        self.stored_version.swap(version, Ordering::Relaxed) != version
    }

    /// Asks the task to stop. Once accepted it will not complete.
    pub(super) fn request_cancel(&self, now: Timestamp) -> CancelRequest {
        let mut phase = self.phase.lock();
        match *phase {
            Phase::Running => *phase = Phase::CancelRequested(now),
            Phase::CancelRequested(_) => {}
            Phase::Finishing => return CancelRequest::TooLate,
        }
        drop(phase);
        self.token.cancel();
        CancelRequest::Accepted
    }

    /// From here on cancellation comes too late; unless it was accepted before, in which case its
    /// time is returned.
    pub(super) fn begin_finish(&self) -> Option<Timestamp> {
        let mut phase = self.phase.lock();
        if let Phase::CancelRequested(at) = *phase {
            return Some(at);
        }
        *phase = Phase::Finishing;
        None
    }

    /// The end of the attempt could not be stored, and is tried again.
    pub(super) fn end_refused(&self, error: &StoreError) {
        self.refused.send_replace(Some(error.clone()));
    }

    /// Resolves when the end of the attempt is stored, or could not be.
    pub(super) async fn end_tried(&self) -> Result<(), StoreError> {
        let mut refused = self.refused.subscribe();
        tokio::select! {
            biased;
            () = self.over.cancelled() => Ok(()),
            error = refused.wait_for(Option::is_some) => {
                // Cannot fail: the sender is right here.
                error.ok().and_then(|error| error.clone()).map_or(Ok(()), Err)
            }
        }
    }

    pub(super) fn cancel_requested_at(&self) -> Option<Timestamp> {
        match *self.phase.lock() {
            Phase::CancelRequested(at) => Some(at),
            Phase::Running | Phase::Finishing => None,
        }
    }

    /// The record with the progress of this moment.
    pub(super) fn info(&self) -> TaskInfo {
        self.state().1
    }

    /// The same, and where it stands among all states of the task.
    pub(super) fn state(&self) -> (Stamp, TaskInfo) {
        let progress = self.progress.read();
        let mut info = TaskInfo::clone(&self.claimed);
        info.progress = progress.percent;
        info.message = progress.message;
        info.updated_at = progress.updated_at;
        let since = |started_at| eta(started_at, info.updated_at, info.progress, Timestamp::now());
        info.eta_seconds = info.started_at.and_then(since);
        let cancelling = self.cancel_requested_at();
        if let Some(at) = cancelling {
            info.cancel_requested_at = Some(at);
            info.updated_at = info.updated_at.max(at);
        }
        (Stamp::running(self.epoch, progress.version, cancelling.is_some()), info)
    }

    /// The state, if it is another one than at the last call.
    pub(super) fn progress_to_tell(&self) -> Option<(Stamp, TaskInfo)> {
        let version = self.progress.version();
        let now = Stamp::running(self.epoch, version, self.cancel_requested_at().is_some());
        let mut told = self.told.lock();
        if *told == now {
            return None;
        }
        let (stamp, info) = self.state();
        *told = stamp;
        Some((stamp, info))
    }

    /// The record after the end of the attempt, which was committed at this time.
    pub(super) fn after(&self, end: &AttemptEnd, at: Timestamp) -> TaskInfo {
        let mut info = TaskInfo::clone(&self.claimed);
        info.status = end.status;
        info.progress = end.progress;
        info.message.clone_from(&end.message);
        info.result.clone_from(&end.result);
        info.error.clone_from(&end.error);
        info.attempt -= u32::from(end.attempt_given_back);
        info.cancel_requested_at = end.cancel_requested_at;
        info.completed_at = end.status.is_final().then_some(at);
        info.updated_at = at;
        info
    }

    pub(super) fn render(&self) -> Rendered {
        let key = (self.progress.version(), self.cancel_requested_at());
        let mut cached = self.rendered.lock();
        match &*cached {
            Some(cached) if cached.key == key && Instant::now() < cached.until => {
                cached.rendered.clone()
            }
            _ => {
                // May be newer than the key says; then it is merely rendered once more.
                let info = self.info();
                let rendered = Rendered::new(&info);
                let until = Instant::now() + info.eta_seconds.map_or(LONGEST_CACHED, time_left);
                *cached = Some(Cached { key, until, rendered: rendered.clone() });
                rendered
            }
        }
    }
}

/// A live task as JSON.
#[derive(Debug)]
struct Cached {
    key: RenderKey,
    /// When the estimate in it is overdue, at the latest.
    until: Instant,
    rendered: Rendered,
}

/// Upper limit of the time for which a rendered task is kept.
const LONGEST_CACHED: Duration = Duration::from_secs(60 * 60);

fn time_left(eta_seconds: f64) -> Duration {
    Duration::try_from_secs_f64(eta_seconds).map_or(LONGEST_CACHED, |left| left.min(LONGEST_CACHED))
}

/// Time from the latest progress to the end if it goes on as before, in seconds. `None` once that is over: the
/// estimate was wrong.
fn eta(
    started_at: Timestamp,
    progressed_at: Timestamp,
    percent: f64,
    now: Timestamp,
) -> Option<f64> {
    let elapsed = progressed_at.as_micros() - started_at.as_micros();
    let possible = percent > 0.0 && percent < 100.0 && elapsed > 0;
    // A guess has no business with microseconds.
    let milliseconds = elapsed as f64 / 1e3 * (100.0 - percent) / percent;
    let since = (now.as_micros() - progressed_at.as_micros()) as f64 / 1e3;
    (possible && since <= milliseconds).then(|| milliseconds.round() / 1e3)
}

/// All live tasks by id.
#[derive(Debug)]
pub(super) struct LiveTasks {
    tasks: RwLock<HashMap<TaskId, Arc<LiveTask>>>,
    count: watch::Sender<usize>,
}

impl LiveTasks {
    pub(super) fn new() -> Self {
        Self { tasks: RwLock::default(), count: watch::Sender::new(0) }
    }

    pub(super) fn insert(&self, task: Arc<LiveTask>) {
        let mut tasks = self.tasks.write();
        tasks.insert(task.claimed.task_id, task);
        self.count.send_replace(tasks.len());
    }

    pub(super) fn remove(&self, id: TaskId) {
        let mut tasks = self.tasks.write();
        if let Some(task) = tasks.remove(&id) {
            task.over.cancel();
        }
        self.count.send_replace(tasks.len());
    }

    /// Not one that is over, of which the database knows more.
    pub(super) fn get(&self, id: TaskId) -> Option<Arc<LiveTask>> {
        let tasks = self.tasks.read();
        tasks.get(&id).filter(|task| !task.over.is_cancelled()).cloned()
    }

    /// The task that began last.
    pub(super) fn newest(&self) -> Option<Arc<LiveTask>> {
        let tasks = self.tasks.read();
        let began = |task: &&Arc<LiveTask>| (task.claimed.started_at, task.seq);
        tasks.values().max_by_key(began).cloned()
    }

    /// How many tasks of a type are live.
    pub(super) fn count(&self, task_type: &str) -> usize {
        let tasks = self.tasks.read();
        tasks.values().filter(|task| task.claimed.task_type == task_type).count()
    }

    pub(super) fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// All of them, in no order.
    pub(super) fn all(&self) -> Vec<Arc<LiveTask>> {
        let tasks = self.tasks.read();
        tasks.values().cloned().collect()
    }

    /// Returns once any task is live.
    pub(super) async fn occupied(&self) {
        // Cannot fail: the sender is right here.
        let _ = self.count.subscribe().wait_for(|count| *count > 0).await;
    }

    /// Returns once no task is live.
    pub(super) async fn emptied(&self) {
        // Cannot fail: the sender is right here.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_that_is_overdue_is_left_out() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        for (percent, now, expected) in [
            (25.0, 2, Some(6.0)),
            (25.0, 8, Some(6.0)),
            (25.0, 9, None),
            (0.0, 2, None),
            (100.0, 2, None),
        ] {
            assert_eq!(eta(at(0), at(2), percent, at(now)), expected, "{percent} % at {now} s");
        }
    }

    #[test]
    fn no_estimate_is_too_long_to_be_kept() {
        assert_eq!(time_left(1.5), Duration::from_millis(1500));
        assert_eq!(time_left(1e300), LONGEST_CACHED);
        assert_eq!(time_left(f64::INFINITY), LONGEST_CACHED);
    }
}
