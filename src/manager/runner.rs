//! Runs one attempt: spawns the task's code, watches it, and stores how it ended.

use std::any::Any;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout};
use tracing::{Instrument, debug, error, info_span, warn};

use super::Shared;
use super::conclusion::{Outcome, conclude};
use super::live::LiveTask;
use crate::store::{AttemptEnd, StoreError, StoredProgress};
use crate::task::{
    Attempt, BlockingWork, OutputFile, SlotWait, Task, TaskContext, TaskError, TaskResult,
    with_causes,
};

/// Progress is stored at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// How long code may take to notice that the server is stopping, after its grace is over.
const STOP_TIME: Duration = Duration::from_secs(1);
/// How long to leave the database alone after it refused.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// What the runner keeps of an attempt while the task's code has the rest.
struct Handles {
    blocking: Arc<BlockingWork>,
    slot_wait: Arc<SlotWait>,
    output: Arc<Mutex<Option<OutputFile>>>,
}

/// Runs a claimed task to the commit of its end.
pub(super) async fn run(shared: Arc<Shared>, live: Arc<LiveTask>, task: Box<dyn Task>) {
    let id = live.claimed.task_id;
    let span = info_span!("task", task.id = %id, task.r#type = live.claimed.task_type);
    async {
        debug!(attempt = live.claimed.attempt, "started");
        let (outcome, output) = watch(&shared, &live, task, span.clone()).await;
        let end = Arc::new(conclude(&live, outcome, output).await);
        store_end(&shared, end).await;
    }
    .instrument(span.clone())
    .await;
}

/// Spawns the task's code and stays with it until it has ended or is given up.
async fn watch(
    shared: &Arc<Shared>,
    live: &Arc<LiveTask>,
    task: Box<dyn Task>,
    span: tracing::Span,
) -> (Outcome, Option<OutputFile>) {
    let handles = Handles {
        blocking: Arc::new(BlockingWork::new(shared.cpu_slots.clone())),
        slot_wait: Arc::default(),
        output: Arc::default(),
    };
    let code = spawn(shared, live, task, &handles, span);
    let abort = code.abort_handle();
    let work = async {
        let joined = code.await;
        // An attempt is not over before its threads are.
        handles.blocking.finished().await;
        match joined {
            Ok(result) => Outcome::Returned(result),
            Err(error) if error.is_panic() => Outcome::Panicked(panic_text(&*error.into_panic())),
            // The runtime of the tasks is going away.
            Err(_) => Outcome::Interrupted,
        }
    };
    tokio::pin!(work);
    let began = Instant::now();
    let limit = live.claimed.timeout_seconds;
    let mut next_store = began;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut work => break outcome,
            () = deadline(began, limit, &handles.slot_wait) => {
                give_up(live, &abort, &handles);
                break Outcome::TimedOut(limit.unwrap_or_default());
            }
            () = shared.interrupt.cancelled() => {
                // The server stops. What the code returns from here on it may return because it was
                // told to stop, so it counts for nothing: the task runs again.
                live.token.cancel();
                let _ = timeout(STOP_TIME, work).await;
                give_up(live, &abort, &handles);
                break Outcome::Interrupted;
            }
            () = store_progress(shared, live, next_store) => {
                next_store = Instant::now() + PROGRESS_INTERVAL;
            }
        }
    };
    let output = handles.output.lock().unwrap_or_else(PoisonError::into_inner).take();
    (outcome, output)
}

/// Starts the task's code on the runtime of the tasks, where a loop that never yields holds up
/// other tasks at worst, and not the server.
fn spawn(
    shared: &Arc<Shared>,
    live: &Arc<LiveTask>,
    task: Box<dyn Task>,
    handles: &Handles,
    span: tracing::Span,
) -> JoinHandle<TaskResult> {
    let ctx = TaskContext::new(Attempt {
        info: Arc::clone(&live.claimed),
        epoch: live.epoch,
        parameters: OnceLock::new(),
        token: live.token.clone(),
        progress: Arc::clone(&live.progress),
        files: Arc::clone(&shared.files),
        blocking: Arc::clone(&handles.blocking),
        slot_wait: Arc::clone(&handles.slot_wait),
        output: Arc::clone(&handles.output),
    });
    let token = live.token.clone();
    let code = async move {
        tokio::select! {
            biased;
            result = task.execute(ctx) => result,
            // Dropped here, at whatever await it had reached.
            () = token.cancelled() => Err(TaskError::Cancelled),
        }
    };
    shared.runtime.spawn(code.instrument(span))
}

/// Returns when the attempt has had its time, not counting the wait for CPU slots.
async fn deadline(began: Instant, limit: Option<f64>, slot_wait: &SlotWait) {
    // A limit beyond what a timer takes is as good as none.
    let Some(limit) = limit.and_then(|limit| Duration::try_from_secs_f64(limit).ok()) else {
        return std::future::pending().await;
    };
    loop {
        let worked = began.elapsed().saturating_sub(slot_wait.total());
        let Some(left) = limit.checked_sub(worked).filter(|left| !left.is_zero()) else { return };
        // While the attempt waits for a slot what is left does not shrink: look again now and then.
        tokio::time::sleep(left.max(Duration::from_millis(10))).await;
    }
}

/// Lets go of an attempt that does not end by itself.
fn give_up(live: &LiveTask, code: &AbortHandle, handles: &Handles) {
    live.token.cancel();
    code.abort();
    let threads = handles.blocking.abandon();
    if threads > 0 {
        warn!(threads, "gave up an attempt whose blocking work goes on");
    }
}

/// Waits for news from the task, then for its turn, and stores it.
async fn store_progress(shared: &Shared, live: &LiveTask, not_before: Instant) {
    live.progress.changed().await;
    tokio::time::sleep_until(not_before).await;
    let progress = live.progress.read();
    let stored = StoredProgress {
        seq: live.seq,
        epoch: live.epoch,
        percent: progress.percent,
        message: progress.message,
        updated_at: progress.updated_at,
    };
    // Progress that could not be stored is made good by what is stored next; the writer logs why.
    let _ = shared.store.progress(stored).await;
}

/// Stores the end, however long the database refuses: what was done must not be lost.
async fn store_end(shared: &Shared, end: Arc<AttemptEnd>) {
    loop {
        match shared.store.end(Arc::clone(&end)).await {
            Ok(true) => return debug!(status = end.status.name(), "ended"),
            Ok(false) => {
                // Cannot happen while one server owns the database; then the task is not ours.
                error!("the end of an attempt found its task in other hands");
                return shared.live.remove(end.id);
            }
            Err(StoreError::Closed) => return,
            // Waiting on would keep the server from stopping; the next start finds the task running
            // and sees to it.
            Err(error) if shared.interrupt.is_cancelled() => {
                error!(error = with_causes(&error), "could not store the end of a task");
                return shared.live.remove(end.id);
            }
            Err(error) => {
                warn!(error = with_causes(&error), "cannot store the end of a task, trying again");
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
