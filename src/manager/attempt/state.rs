//! One attempt: its state, and the view of pollers.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::stamp::Stamp;
use crate::manager::rendered::Rendered;
use crate::store::{AttemptEnd, StoreError, TaskRecord};
use crate::task::{
    AttemptFolders, BlockingWork, CpuSlots, Ending, Output, Progress, SlotWait, StateFolder,
    TaskInfo, TaskLog, Timestamp,
};

/// One attempt at a task, from its claim to the commit of its end.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) seq: i64,
    pub(crate) epoch: i64,
    /// The task as it was claimed.
    pub(crate) claimed: Arc<TaskInfo>,
    pub(super) progress: Arc<Progress>,
    /// Asks the task's code to stop.
    pub(super) token: CancellationToken,
    pub(super) blocking: Arc<BlockingWork>,
    pub(super) slot_wait: Arc<SlotWait>,
    /// The output that the task has created, to be published.
    pub(super) output: Arc<Mutex<Option<Output>>>,
    pub(super) folders: Arc<AttemptFolders>,
    pub(crate) log: TaskLog,
    /// What has to be over before the attempt ends.
    pub(super) ending: Arc<Ending>,
    /// Written by the methods below: by requests for cancellation, by the runner and by the fold. Its
    /// lock decides between completion and cancellation.
    state: watch::Sender<State>,
    /// Taken by whoever ends the attempt: its own code, its deadline or the stop of the server.
    end_right: Mutex<Option<EndRight>>,
    /// The spawned code, until it is ended from outside.
    running: Mutex<Option<JoinHandle<()>>>,
    /// Filled by polls, for further polls of the same progress.
    rendered: Mutex<Option<Cached>>,
}

/// Permission to end an attempt, which exists once.
#[derive(Debug)]
pub(super) struct EndRight(());

/// States of an attempt, in order. A state may be skipped, and none is entered twice.
#[derive(Clone, Debug)]
enum State {
    Running,
    /// Cancellation was requested at this time: the attempt can only end as cancelled.
    CancelRequested(Timestamp),
    /// The end is being published and stored: too late to cancel. Holds the error of the last failure to
    /// store it.
    Finishing(Option<StoreError>),
    /// The end is committed: the database has the newer record.
    Over,
}

/// Response of an attempt to a cancellation request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelRequest {
    Accepted,
    TooLate,
}

impl Attempt {
    pub(super) fn new(
        record: TaskRecord,
        slots: CpuSlots,
        state: Arc<StateFolder>,
        log: TaskLog,
    ) -> Self {
        let progress = Progress::new(&record.info.message, record.info.updated_at);
        let folders = AttemptFolders::new(state, record.info.task_id, record.epoch);
        Self {
            seq: record.seq,
            epoch: record.epoch,
            claimed: Arc::new(record.info),
            progress: Arc::new(progress),
            token: CancellationToken::new(),
            blocking: Arc::new(BlockingWork::new(slots)),
            slot_wait: Arc::default(),
            output: Arc::default(),
            folders: Arc::new(folders),
            log,
            ending: Arc::default(),
            state: watch::Sender::new(State::Running),
            end_right: Mutex::new(Some(EndRight(()))),
            running: Mutex::new(None),
            rendered: Mutex::new(None),
        }
    }

    pub(super) fn spawned(&self, running: JoinHandle<()>) {
        *self.running.lock() = Some(running);
    }

    pub(super) fn take_running(&self) -> Option<JoinHandle<()>> {
        self.running.lock().take()
    }

    /// `None` if the attempt is being ended already.
    pub(super) fn take_end_right(&self) -> Option<EndRight> {
        self.end_right.lock().take()
    }

    /// Asks the task to stop. After acceptance it cannot complete.
    pub(crate) fn request_cancel(&self, now: Timestamp) -> CancelRequest {
        let mut request = CancelRequest::Accepted;
        self.state.send_modify(|state| match state {
            State::Running => *state = State::CancelRequested(now),
            State::CancelRequested(_) => {}
            State::Finishing(_) | State::Over => request = CancelRequest::TooLate,
        });
        if request == CancelRequest::Accepted {
            self.token.cancel();
        }
        request
    }

    /// Makes it too late to cancel, or returns the time of an earlier cancellation request.
    pub(super) fn finish(&self) -> Option<Timestamp> {
        let mut cancelled = None;
        self.state.send_modify(|state| match state {
            State::Running => *state = State::Finishing(None),
            State::CancelRequested(at) => cancelled = Some(*at),
            State::Finishing(_) | State::Over => {}
        });
        cancelled
    }

    /// Records that the end could not be stored and will be tried again.
    pub(super) fn end_refused(&self, error: &StoreError) {
        self.state.send_modify(|state| {
            if let State::Finishing(refused) = state {
                *refused = Some(error.clone());
            }
        });
    }

    /// Records that the end is committed.
    pub(crate) fn end(&self) {
        self.state.send_replace(State::Over);
    }

    /// Calls `run` unless the attempt is over, and keeps it from ending meanwhile.
    pub(crate) fn unless_over(&self, run: impl FnOnce()) {
        let state = self.state.borrow();
        if !matches!(*state, State::Over) {
            run();
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(*self.state.borrow(), State::Over)
    }

    /// Resolves when the end of the attempt is committed.
    pub(crate) async fn over(&self) {
        // Cannot fail: `self` holds the sender.
        let _ = self.state.subscribe().wait_for(|state| matches!(state, State::Over)).await;
    }

    /// Resolves when the end of the attempt is stored, or could not be.
    pub(crate) async fn end_tried(&self) -> Result<(), StoreError> {
        let tried = |state: &State| matches!(state, State::Over | State::Finishing(Some(_)));
        match self.state.subscribe().wait_for(tried).await.as_deref() {
            Ok(State::Finishing(Some(error))) => Err(error.clone()),
            // `self` holds the sender, so this is `Over`.
            _ => Ok(()),
        }
    }

    fn cancel_requested_at(&self) -> Option<Timestamp> {
        match *self.state.borrow() {
            State::CancelRequested(at) => Some(at),
            State::Running | State::Finishing(_) | State::Over => None,
        }
    }

    /// The task with its current progress, and the stamp of that state.
    pub(crate) fn snapshot(&self) -> (Stamp, TaskInfo) {
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

    /// The current snapshot, if its stamp differs from `last`.
    pub(crate) fn snapshot_after(&self, last: Stamp) -> Option<(Stamp, TaskInfo)> {
        let cancelling = self.cancel_requested_at().is_some();
        let now = Stamp::running(self.epoch, self.progress.version(), cancelling);
        (last != now).then(|| self.snapshot())
    }

    /// The task after an end that was committed at this time.
    pub(crate) fn after(&self, end: &AttemptEnd, at: Timestamp) -> TaskInfo {
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

    /// The task as JSON, rendered once per change.
    pub(crate) fn render(&self) -> Rendered {
        let key = (self.progress.version(), self.cancel_requested_at());
        let mut cached = self.rendered.lock();
        match &*cached {
            Some(cached) if cached.key == key && Instant::now() < cached.until => {
                cached.rendered.clone()
            }
            _ => {
                // May be newer than the key, which only causes one more rendering.
                let (_, info) = self.snapshot();
                let rendered = Rendered::new(&info);
                let until = Instant::now() + info.eta_seconds.map_or(LONGEST_CACHED, time_left);
                *cached = Some(Cached { key, until, rendered: rendered.clone() });
                rendered
            }
        }
    }
}

/// A running task as JSON.
#[derive(Debug)]
struct Cached {
    /// Version of the progress, and time of the cancellation request.
    key: (u64, Option<Timestamp>),
    /// Time at which its estimate becomes overdue.
    until: Instant,
    rendered: Rendered,
}

/// Maximum lifetime of a rendered task.
const LONGEST_CACHED: Duration = Duration::from_secs(60 * 60);

fn time_left(eta_seconds: f64) -> Duration {
    Duration::try_from_secs_f64(eta_seconds).map_or(LONGEST_CACHED, |left| left.min(LONGEST_CACHED))
}

/// Estimated time from the latest progress to the end, in seconds, at the average speed so far. `None`
/// once it has passed.
fn eta(
    started_at: Timestamp,
    progressed_at: Timestamp,
    percent: f64,
    now: Timestamp,
) -> Option<f64> {
    let elapsed = progressed_at.as_micros() - started_at.as_micros();
    let possible = percent > 0.0 && percent < 100.0 && elapsed > 0;
    // Milliseconds: an estimate does not warrant microseconds.
    let milliseconds = elapsed as f64 / 1e3 * (100.0 - percent) / percent;
    let since = (now.as_micros() - progressed_at.as_micros()) as f64 / 1e3;
    (possible && since <= milliseconds).then(|| milliseconds.round() / 1e3)
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
