//! Runs one attempt: spawns the task's code, watches it, and stores how it ended.

use std::any::Any;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout};
use tracing::{Instrument, debug, error, info_span, warn};

use super::Shared;
use super::due::MAX_BACKOFF;
use super::live::LiveTask;
use crate::store::{AttemptEnd, StoreError, StoredProgress};
use crate::task::{
    Attempt, BlockingWork, OutputFile, SlotWait, TaskContext, TaskError, TaskResult, TaskStatus,
    Timestamp, shorten, with_causes,
};

/// The largest result that is stored, in bytes of JSON.
const MAX_RESULT_BYTES: usize = 1024 * 1024;
/// Longer errors are cut, in bytes.
const MAX_ERROR_BYTES: usize = 16 * 1024;
/// Progress is stored at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// The pause before the second attempt; doubled for each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// How long code may take to notice that the server is stopping, after its grace is over.
const STOP_TIME: Duration = Duration::from_secs(1);
/// How long to leave the database alone after it refused.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// How an attempt ended.
enum Outcome {
    Returned(TaskResult),
    Panicked(String),
    TimedOut(f64),
    /// The server is stopping.
    Interrupted,
}

/// What the runner keeps of an attempt while the task's code has the rest.
struct Handles {
    blocking: Arc<BlockingWork>,
    slot_wait: Arc<SlotWait>,
    output: Arc<Mutex<Option<OutputFile>>>,
}

/// Runs a claimed task to the commit of its end.
pub(super) async fn run(shared: Arc<Shared>, live: Arc<LiveTask>) {
    let id = live.record.info.task_id;
    let span = info_span!("task", task.id = %id, task.r#type = live.record.info.task_type);
    async {
        debug!(attempt = live.record.info.attempt, "started");
        let (outcome, output) = watch(&shared, &live, span.clone()).await;
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
    span: tracing::Span,
) -> (Outcome, Option<OutputFile>) {
    let handles = Handles {
        blocking: Arc::new(BlockingWork::new(shared.cpu_slots.clone())),
        slot_wait: Arc::default(),
        output: Arc::default(),
    };
    let code = match spawn(shared, live, &handles, span) {
        Ok(code) => code,
        Err(error) => return (Outcome::Returned(Err(error)), None),
    };
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
    let limit = live.record.info.timeout_seconds;
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
                // The server stops: what the code returns is taken if it does so soon.
                live.token.cancel();
                if let Ok(outcome @ Outcome::Returned(Ok(_))) = timeout(STOP_TIME, work).await {
                    break outcome;
                }
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
    handles: &Handles,
    span: tracing::Span,
) -> Result<JoinHandle<TaskResult>, TaskError> {
    let record = &live.record;
    let task = shared.parse(&record.info).map_err(TaskError::permanent)?;
    let ctx = TaskContext::new(Attempt {
        info: record.info.clone(),
        epoch: record.epoch,
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
    Ok(shared.runtime.spawn(code.instrument(span)))
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
        seq: live.record.seq,
        epoch: live.record.epoch,
        percent: progress.percent,
        message: progress.message,
        updated_at: progress.updated_at,
    };
    // Progress that could not be stored is made good by what is stored next; the writer logs why.
    let _ = shared.store.progress(stored).await;
}

/// Decides what came of the attempt, and publishes its output if it is a success.
async fn conclude(live: &LiveTask, outcome: Outcome, output: Option<OutputFile>) -> AttemptEnd {
    let info = &live.record.info;
    let percent = live.progress.read().percent;
    let mut end = AttemptEnd {
        seq: live.record.seq,
        epoch: live.record.epoch,
        id: info.task_id,
        status: TaskStatus::Pending,
        progress: percent,
        message: String::new(),
        result: None,
        error: None,
        due_at: None,
        attempt_given_back: false,
        cancel_requested_at: None,
    };
    let finished = match outcome {
        Outcome::Returned(Ok(result)) => finish(live, &result, output.as_ref()).await,
        Outcome::Returned(Err(TaskError::Cancelled)) => {
            Err(Failure::of("the task stopped as if it was cancelled, but nobody asked for that"))
        }
        Outcome::Returned(Err(TaskError::Failed { message, permanent })) => {
            Err(Failure { message, permanent })
        }
        Outcome::Panicked(message) => Err(Failure::of(format!("the task panicked: {message}"))),
        Outcome::TimedOut(seconds) => {
            Err(Failure::of(format!("the task did not end within its timeout of {seconds} s")))
        }
        Outcome::Interrupted => {
            end.progress = 0.0;
            end.attempt_given_back = true;
            Ok(None)
        }
    };
    end.cancel_requested_at = live.begin_finish();
    match finished {
        Ok(Some(result)) => {
            end.status = TaskStatus::Completed;
            end.progress = 100.0;
            end.message = "Task completed successfully".to_owned();
            end.result = Some(result);
        }
        Ok(None) => {}
        Err(failure) => fail(&mut end, failure, info.attempt, info.max_attempts),
    }
    let published = end.status == TaskStatus::Completed && end.cancel_requested_at.is_none();
    if let Some(output) = output.filter(|_| !published) {
        output.discard();
    }
    end
}

/// Why an attempt failed.
struct Failure {
    message: String,
    permanent: bool,
}

impl Failure {
    fn of(message: impl Into<String>) -> Self {
        Self { message: message.into(), permanent: false }
    }
}

/// Publishes the output of a task that returned `Ok`, unless cancellation came first.
async fn finish(
    live: &LiveTask,
    result: &Value,
    output: Option<&OutputFile>,
) -> Result<Option<Box<RawValue>>, Failure> {
    let result = serde_json::value::to_raw_value(result)
        .map_err(|error| Failure::of(with_causes(&error)))?;
    if result.get().len() > MAX_RESULT_BYTES {
        return Err(Failure {
            message: format!(
                "the result is {} bytes of JSON, more than the limit of {MAX_RESULT_BYTES}: \
                 write it to the output file instead",
                result.get().len()
            ),
            permanent: true,
        });
    }
    if let Some(output) = output {
        let failed = |error: std::io::Error| {
            let path = live.record.info.output_file_path.as_deref().unwrap_or_default();
            Failure::of(format!("cannot write `{path}`: {error}"))
        };
        on_disk(output, OutputFile::sync).await.map_err(failed)?;
        if live.begin_finish().is_none() {
            on_disk(output, OutputFile::publish).await.map_err(failed)?;
        }
    }
    Ok(Some(result))
}

/// Runs a step of publishing where waiting for the disk harms nobody.
async fn on_disk(
    output: &OutputFile,
    step: fn(&OutputFile) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let output = output.clone();
    match tokio::task::spawn_blocking(move || step(&output)).await {
        Ok(done) => done,
        Err(error) => Err(std::io::Error::other(error)),
    }
}

/// Another attempt after a pause, or the end.
fn fail(end: &mut AttemptEnd, failure: Failure, attempt: u32, max_attempts: u32) {
    let Failure { message, permanent } = failure;
    let message = shorten(message, MAX_ERROR_BYTES);
    debug!(error = message, attempt, max_attempts, "failed");
    if permanent || attempt >= max_attempts {
        end.status = TaskStatus::Failed;
        end.message = format!("Task failed: {message}");
    } else {
        let pause = backoff(attempt);
        let due_at = Timestamp::now().as_micros() + pause.as_micros() as i64;
        end.due_at = Some(Timestamp::from_micros(due_at));
        end.progress = 0.0;
        end.message = format!(
            "Attempt {attempt} of {max_attempts} failed, next in {:.1} s: {message}",
            pause.as_secs_f64()
        );
    }
    end.error = Some(message);
}

/// Doubles with each attempt, up to a limit, and varies by a quarter so that tasks that failed
/// together do not come back together.
fn backoff(attempt: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << (attempt - 1).min(16)).min(MAX_BACKOFF);
    // Each `RandomState` is seeded at random, which is all the randomness that this needs.
    let random = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
    full.mul_f64(0.75 + 0.25 * random)
}

/// Stores the end, however long the database refuses: what was done must not be lost.
async fn store_end(shared: &Shared, end: Arc<AttemptEnd>) {
    loop {
        match shared.store.end(Arc::clone(&end)).await {
            Ok(Some(status)) => return debug!(status = status.name(), "ended"),
            Ok(None) => {
                // Cannot happen while one server owns the database; then the task is not ours.
                error!("the end of an attempt found its task in other hands");
                return shared.live.remove(end.id);
            }
            Err(StoreError::Closed) => return,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit_and_varies() {
        for attempt in 1..40 {
            let full = FIRST_BACKOFF.saturating_mul(1 << (attempt - 1).min(16)).min(MAX_BACKOFF);
            let pause = backoff(attempt);
            assert!(pause <= full && pause >= full.mul_f64(0.75), "{attempt}: {pause:?}");
        }
    }
}
