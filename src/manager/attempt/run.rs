//! Drivers of attempts: each spawns the task's code, waits for its return, its deadline or the stop of
//! the server, and stores the end.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, JoinError};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span, warn};

use super::attempts::Attempts;
use super::conclude::{Outcome, conclude};
use super::log;
use super::polls::{SlowThreads, WatchedPolls};
use super::state::Attempt;
use crate::store::{AttemptEnd, Store, StoreError, TaskRecord};
use crate::task::{
    self, CpuSlots, Files, LogFolder, MemoryBudget, SlotWait, StateFolder, Task, TaskContext, TaskError,
    TaskInfo, with_causes,
};
use crate::tasks::TaskRegistry;

/// Time for code to react to the stop of the server, after the grace period.
const STOP_TIME: Duration = Duration::from_millis(500);
/// Pause before another try to store the end of an attempt.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Shared resources of all attempts.
#[derive(Debug)]
pub(crate) struct Runner {
    attempts: Arc<Attempts>,
    store: Store,
    registry: Arc<TaskRegistry>,
    files: Arc<Files>,
    state_folder: Arc<StateFolder>,
    logs: Arc<LogFolder>,
    cpu_slots: CpuSlots,
    memory: MemoryBudget,
    slow_threads: SlowThreads,
    /// Polls the code of tasks. Separate from the runtime that serves requests, so that code that blocks
    /// its thread cannot hold up the server. `None` during the drop.
    runtime: Option<Runtime>,
    /// Tells drivers to return running tasks to pending.
    interrupted: CancellationToken,
}

impl Drop for Runner {
    fn drop(&mut self) {
        // A thread that never ends must not keep the process alive.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Runner {
    /// # Errors
    /// If no threads can be started.
    pub(crate) fn new(
        attempts: Arc<Attempts>,
        store: Store,
        registry: Arc<TaskRegistry>,
        files: Arc<Files>,
        state_folder: Arc<StateFolder>,
        logs: Arc<LogFolder>,
        cpu_slots: CpuSlots,
        interrupted: CancellationToken,
    ) -> std::io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().thread_name("task").enable_all().build()?;
        Ok(Self {
            attempts,
            store,
            registry,
            files,
            state_folder,
            logs,
            cpu_slots,
            memory: MemoryBudget::new(),
            slow_threads: SlowThreads::new(),
            runtime: Some(runtime),
            interrupted,
        })
    }

    /// Starts an attempt. A task that was claimed from the database has no code yet.
    pub(crate) fn start(self: &Arc<Self>, record: TaskRecord, code: Option<Box<dyn Task>>) {
        let log = self.logs.log(record.info.task_id, record.info.attempt);
        let state = Arc::clone(&self.state_folder);
        let attempt = Arc::new(Attempt::new(record, self.cpu_slots.clone(), state, log));
        self.attempts.insert(Arc::clone(&attempt));
        let info = &attempt.claimed;
        let span = info_span!("task", task.id = %info.task_id, task.r#type = info.task_type);
        task::attach(&span, &attempt.log);
        tokio::spawn(Arc::clone(self).drive(attempt, code).instrument(span));
    }

    /// Runs the code of an attempt and stores its end.
    async fn drive(self: Arc<Self>, attempt: Arc<Attempt>, code: Option<Box<dyn Task>>) {
        debug!(attempt = attempt.claimed.attempt, "started");
        let runtime = self.runtime.as_ref().expect("the runtime exists until the drop");
        let execute = Arc::clone(&self).execute(Arc::clone(&attempt), code).in_current_span();
        let running = runtime.spawn(execute);
        let abort = running.abort_handle();
        let ended = async {
            let ended = running.await;
            // An attempt ends only after its blocking threads.
            attempt.blocking.finished().await;
            ended.unwrap_or_else(panicked)
        };
        let mut ended = pin!(ended);
        let outcome = tokio::select! {
            outcome = &mut ended => outcome,
            limit = deadline(attempt.claimed.timeout_seconds, &attempt.slot_wait) => {
                give_up(&attempt, &abort);
                Outcome::TimedOut(limit)
            }
            () = self.interrupted.cancelled() => {
                // A return value may be an effect of the stop, so it is ignored: the task runs again.
                attempt.token.cancel();
                let _ = timeout(STOP_TIME, &mut ended).await;
                give_up(&attempt, &abort);
                Outcome::Interrupted
            }
        };
        let end = conclude(&attempt, outcome).await;
        attempt.folders.end();
        let log = log::close(&attempt).await.filter(|_| !end.attempt_given_back);
        self.store_end(&attempt, end).await;
        if let Some(tail) = log {
            log::store_if_possible(&self.store, tail).await;
        }
    }

    /// Makes the task if needed, and runs it. Its parameter checks are a contributor's code too, which
    /// may be slow or panic here.
    async fn execute(
        self: Arc<Self>,
        attempt: Arc<Attempt>,
        code: Option<Box<dyn Task>>,
    ) -> Outcome {
        let task = match code {
            Some(task) => task,
            None => {
                let prepare = Box::pin(async { prepare(&self.registry, &attempt.claimed) });
                match WatchedPolls::new(prepare, &self.slow_threads).await {
                    Ok(task) => task,
                    Err(reason) => return Outcome::Unrunnable(reason),
                }
            }
        };
        let ctx = TaskContext::new(task::Attempt {
            info: Arc::clone(&attempt.claimed),
            epoch: attempt.epoch,
            parameters: OnceLock::new(),
            token: attempt.token.clone(),
            progress: Arc::clone(&attempt.progress),
            files: Arc::clone(&self.files),
            blocking: Arc::clone(&attempt.blocking),
            memory: self.memory.clone(),
            slot_wait: Arc::clone(&attempt.slot_wait),
            output: Arc::clone(&attempt.output),
            folders: Arc::clone(&attempt.folders),
            log: attempt.log.clone(),
        });
        Outcome::Returned(tokio::select! {
            biased;
            result = WatchedPolls::new(task.execute(ctx), &self.slow_threads) => result,
            // Drops the code at its current await.
            () = attempt.token.cancelled() => Err(TaskError::Cancelled),
        })
    }

    /// Stores the end of an attempt. What was done must not be lost, so it is tried however long the
    /// database refuses.
    async fn store_end(&self, attempt: &Attempt, end: AttemptEnd) {
        let end = Arc::new(end);
        while let Err(error) = self.store.end(Arc::clone(&end)).await {
            attempt.end_refused(&error);
            let closed = matches!(error, StoreError::Closed);
            let error = with_causes(&error);
            // More tries would keep the server from stopping. The next start recovers the task.
            if closed || self.interrupted.is_cancelled() {
                error!(error, "cannot store the end of a task");
                return self.attempts.remove(end.id, end.epoch);
            }
            warn!(error, "cannot store the end of a task, retrying");
            tokio::time::sleep(STORE_RETRY).await;
        }
    }
}

/// Makes a task from its record, or returns the reason why this build cannot.
fn prepare(registry: &TaskRegistry, info: &TaskInfo) -> Result<Box<dyn Task>, String> {
    let (_, task) = registry
        .find(&info.task_type)
        .ok_or_else(|| format!("this server does not know task type `{}`", info.task_type))?;
    let parameters: Value = serde_json::from_str(info.parameters.get())
        .map_err(|error| format!("the parameters are not JSON: {error}"))?;
    let parse = || task.parse(&parameters);
    let parsed = catch_unwind(AssertUnwindSafe(parse))
        .map_err(|_| "the check of its parameters panicked".to_owned())?;
    parsed.map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(|fault| fault.msg.as_str()).collect();
        format!("this server does not know these parameters: {}", faults.join("; "))
    })
}

/// Resolves with the limit once it has elapsed, not counting waits for CPU slots.
async fn deadline(seconds: Option<f64>, slot_wait: &SlotWait) -> f64 {
    let limit = seconds.and_then(|seconds| {
        // A limit beyond the range of a timer is no limit.
        Some((seconds, Duration::try_from_secs_f64(seconds).ok()?))
    });
    let Some((seconds, limit)) = limit else { return std::future::pending().await };
    let began = Instant::now();
    loop {
        let worked = began.elapsed().saturating_sub(slot_wait.total());
        let Some(left) = limit.checked_sub(worked).filter(|left| !left.is_zero()) else {
            return seconds;
        };
        // Does not shrink while the attempt waits for a CPU slot, so check at an interval.
        tokio::time::sleep(left.max(Duration::from_millis(10))).await;
    }
}

/// Abandons an attempt that does not end by itself.
fn give_up(attempt: &Attempt, code: &AbortHandle) {
    attempt.token.cancel();
    code.abort();
    let threads = attempt.blocking.abandon();
    if threads > 0 {
        warn!(threads, "abandoned an attempt whose blocking work is still running");
    }
}

fn panicked(error: JoinError) -> Outcome {
    let payload: Box<dyn Any + Send> = match error.try_into_panic() {
        Ok(payload) => payload,
        Err(error) => Box::new(error.to_string()),
    };
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    Outcome::Panicked(text.unwrap_or("no message").to_owned())
}
