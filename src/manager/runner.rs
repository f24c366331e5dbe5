//! Runs an attempt: spawns the task's code, and stores how it ended.
//!
//! An attempt is ended by whoever comes first: its own code, its deadline, or the stop of the server
//! ([`LiveTask::take_end`]).

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, debug, error, info_span, warn};

use super::Shared;
use super::conclusion::{Outcome, conclude};
use super::live::LiveTask;
use super::polls::WatchedPolls;
use crate::store::{AttemptEnd, StoreError, TaskRecord};
use crate::task::{Attempt, SlotWait, Task, TaskContext, TaskError, TaskResult, with_causes};

/// How long code may take to notice that the server is stopping, after its grace is over.
const STOP_TIME: Duration = Duration::from_millis(500);
/// How long to leave the database alone after it refused.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Starts the code of a claimed task on the runtime of the tasks, where a loop that never yields
/// holds up other tasks at worst, and not the server.
///
/// A task that was read from the database has no code yet. It is made here and not by the writer: the checks
/// of its parameters are a contributor's code, which may take long or panic.
pub(super) fn start(shared: &Arc<Shared>, record: TaskRecord, task: Option<Box<dyn Task>>) {
    let live = Arc::new(LiveTask::new(record, shared.cpu_slots.clone()));
    shared.live.insert(Arc::clone(&live));
    let info = &live.claimed;
    let span = info_span!("task", task.id = %info.task_id, task.r#type = info.task_type);
    let run = run(Arc::clone(shared), Arc::clone(&live), task).instrument(span.clone());
    live.spawned(shared.runtime.spawn(run));
    if let Some(limit) = info.timeout_seconds {
        tokio::spawn(watch_deadline(Arc::clone(shared), live, limit).instrument(span));
    }
}

/// Runs the code, and ends the attempt when it is done.
async fn run(shared: Arc<Shared>, live: Arc<LiveTask>, task: Option<Box<dyn Task>>) {
    debug!(attempt = live.claimed.attempt, "started");
    let task = match task {
        Some(task) => Ok(task),
        None => {
            let parse = Box::pin(async { shared.parse(&live.claimed) });
            WatchedPolls::new(parse, &shared.slow_threads).await
        }
    };
    let outcome = match task {
        Ok(task) => {
            let code = AssertUnwindSafe(execute(&shared, &live, task)).catch_unwind();
            code.await
                .map_or_else(|panic| Outcome::Panicked(panic_text(&*panic)), Outcome::Returned)
        }
        Err(reason) => Outcome::Unrunnable(reason),
    };
    // An attempt is not over before its threads are.
    live.blocking.finished().await;
    if live.take_end() {
        end(&shared, &live, outcome).await;
    }
}

async fn execute(shared: &Shared, live: &LiveTask, task: Box<dyn Task>) -> TaskResult {
    let ctx = TaskContext::new(Attempt {
        info: Arc::clone(&live.claimed),
        epoch: live.epoch,
        parameters: OnceLock::new(),
        token: live.token.clone(),
        progress: Arc::clone(&live.progress),
        files: Arc::clone(&shared.files),
        blocking: Arc::clone(&live.blocking),
        memory: shared.memory.clone(),
        slot_wait: Arc::clone(&live.slot_wait),
        output: Arc::clone(&live.output),
    });
    tokio::select! {
        biased;
        result = WatchedPolls::new(task.execute(ctx), &shared.slow_threads) => result,
        // Dropped here, at whatever await it had reached.
        () = live.token.cancelled() => Err(TaskError::Cancelled),
    }
}

/// Gives an attempt up when its time is over.
async fn watch_deadline(shared: Arc<Shared>, live: Arc<LiveTask>, limit: f64) {
    tokio::select! {
        () = live.over.cancelled() => return,
        () = deadline(limit, &live.slot_wait) => {}
    }
    if live.take_end() {
        give_up(&live, live.take_code());
        end(&shared, &live, Outcome::TimedOut(limit)).await;
    }
}

/// Returns when the attempt has had its time, not counting the wait for CPU slots.
async fn deadline(limit: f64, slot_wait: &SlotWait) {
    // A limit beyond what a timer takes is as good as none.
    let Ok(limit) = Duration::try_from_secs_f64(limit) else {
        return std::future::pending().await;
    };
    let began = Instant::now();
    loop {
        let worked = began.elapsed().saturating_sub(slot_wait.total());
        let Some(left) = limit.checked_sub(worked).filter(|left| !left.is_zero()) else { return };
        // While the attempt waits for a slot what is left does not shrink: look again now and then.
        tokio::time::sleep(left.max(Duration::from_millis(10))).await;
    }
}

/// Sends all running tasks back to pending, because the server stops.
pub(super) fn interrupt_all(shared: &Arc<Shared>) {
    for live in shared.live.all() {
        tokio::spawn(interrupt(Arc::clone(shared), live));
    }
}

/// What the code returns from here on it may return because it was told to stop, so it counts for
/// nothing: the task runs again.
async fn interrupt(shared: Arc<Shared>, live: Arc<LiveTask>) {
    if !live.take_end() {
        return;
    }
    live.token.cancel();
    let mut code = live.take_code();
    if let Some(code) = &mut code {
        let _ = timeout(STOP_TIME, code).await;
    }
    give_up(&live, code);
    end(&shared, &live, Outcome::Interrupted).await;
}

/// Lets go of an attempt that does not end by itself.
fn give_up(live: &LiveTask, code: Option<JoinHandle<()>>) {
    live.token.cancel();
    if let Some(code) = code {
        code.abort();
    }
    let threads = live.blocking.abandon();
    if threads > 0 {
        warn!(threads, task.id = %live.claimed.task_id, "gave up an attempt whose blocking work goes on");
    }
}

async fn end(shared: &Shared, live: &LiveTask, outcome: Outcome) {
    let end = conclude(live, outcome).await;
    shared.store.end(Arc::new(end)).await;
}

/// The end of an attempt could not be stored. What was done must not be lost, so it is tried again
/// however long the database refuses.
pub(super) fn end_again(shared: &Arc<Shared>, end: Arc<AttemptEnd>, error: &StoreError) {
    let error = with_causes(error);
    // Waiting on would keep the server from stopping; the next start finds the task running and
    // sees to it.
    if shared.interrupted.load(Ordering::Relaxed) {
        error!(error, task.id = %end.id, "could not store the end of a task");
        return shared.live.remove(end.id);
    }
    warn!(error, task.id = %end.id, "cannot store the end of a task, trying again");
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::time::sleep(STORE_RETRY).await;
        shared.store.end(end).await;
    });
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
