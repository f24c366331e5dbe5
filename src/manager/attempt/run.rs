//! Runs attempts. An attempt is ended by its own code when that returns, or from outside at its deadline
//! or at the stop of the server: whoever takes its end right first.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, debug, error, info_span, warn};

use super::attempts::Attempts;
use super::conclude::{Outcome, conclude};
use super::log;
use super::polls::{SlowThreads, WatchedPolls};
use super::state::{Attempt, EndRight};
use crate::store::{AttemptEnd, Store, StoreError, TaskRecord};
use crate::task::{
    self, CpuSlots, Files, LogFolder, MemoryBudget, SlotWait, StateFolder, Task, TaskContext,
    TaskError, TaskInfo, with_causes,
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
    /// Set at the stop of the server, after the grace period.
    interrupted: AtomicBool,
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
            interrupted: AtomicBool::new(false),
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
        let run = Arc::clone(self).run(Arc::clone(&attempt), code).instrument(span.clone());
        let runtime = self.runtime.as_ref().expect("the runtime exists until the drop");
        attempt.spawned(runtime.spawn(run));
        if let Some(limit) = info.timeout_seconds {
            tokio::spawn(Arc::clone(self).watch_deadline(attempt, limit).instrument(span));
        }
    }

    /// Runs the code of an attempt, and ends the attempt unless that has been done from outside.
    async fn run(self: Arc<Self>, attempt: Arc<Attempt>, code: Option<Box<dyn Task>>) {
        debug!(attempt = attempt.claimed.attempt, "started");
        let executed = AssertUnwindSafe(self.execute(&attempt, code)).catch_unwind().await;
        // An attempt ends only after its blocking threads.
        attempt.blocking.finished().await;
        attempt.ending.finished().await;
        if let Some(end_right) = attempt.take_end_right() {
            self.end(attempt, executed.unwrap_or_else(panicked), end_right).await;
        }
    }

    /// Ends an attempt at its deadline.
    async fn watch_deadline(self: Arc<Self>, attempt: Arc<Attempt>, limit: f64) {
        tokio::select! {
            () = attempt.over() => {}
            () = deadline(limit, &attempt.slot_wait) => {
                self.end_from_outside(attempt, Outcome::TimedOut(limit), Duration::ZERO).await;
            }
        }
    }

    /// Returns all running tasks to pending when the server stops.
    pub(crate) async fn interrupt_all(self: &Arc<Self>) {
        self.interrupted.store(true, Ordering::Relaxed);
        let each = self.attempts.all().into_iter().map(|attempt| {
            let runner = Arc::clone(self);
            tokio::spawn(async move {
                runner.end_from_outside(attempt, Outcome::Interrupted, STOP_TIME).await;
            })
        });
        join_all(each).await;
    }

    /// Ends an attempt whose code is still running. What the code returns from here on counts for nothing:
    /// it may be an effect of the stop. The code has `patience` to end by itself.
    async fn end_from_outside(
        self: &Arc<Self>,
        attempt: Arc<Attempt>,
        outcome: Outcome,
        patience: Duration,
    ) {
        let Some(end_right) = attempt.take_end_right() else { return };
        attempt.token.cancel();
        if let Some(mut running) = attempt.take_running() {
            let _ = timeout(patience, &mut running).await;
            running.abort();
        }
        let threads = attempt.blocking.abandon();
        if threads > 0 {
            warn!(threads, "abandoned an attempt whose blocking work is still running");
        }
        if matches!(outcome, Outcome::Interrupted) {
            attempt.ending.hurry();
        }
        attempt.ending.finished().await;
        self.end(attempt, outcome, end_right).await;
    }

    /// Makes the task if needed, and runs it. Its parameter checks are a contributor's code too, which
    /// may be slow or panic here.
    async fn execute(&self, attempt: &Attempt, code: Option<Box<dyn Task>>) -> Outcome {
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
            ending: Arc::clone(&attempt.ending),
        });
        Outcome::Returned(tokio::select! {
            biased;
            result = WatchedPolls::new(task.execute(ctx), &self.slow_threads) => result,
            // Drops the code at its current await.
            () = attempt.token.cancelled() => Err(TaskError::Cancelled),
        })
    }

    /// Concludes an attempt and has its end stored.
    async fn end(self: &Arc<Self>, attempt: Arc<Attempt>, outcome: Outcome, end_right: EndRight) {
        let end = conclude(&attempt, outcome, end_right).await;
        attempt.folders.end();
        let log = log::close(&attempt).await.filter(|_| !end.attempt_given_back);
        Arc::clone(self).store_end(attempt, Arc::new(end)).await;
        // Queued behind the end, so never stored without it.
        if let Some(tail) = log {
            log::store_if_possible(&self.store, tail).await;
        }
    }

    async fn store_end(self: Arc<Self>, attempt: Arc<Attempt>, end: Arc<AttemptEnd>) {
        let (runner, again) = (Arc::clone(&self), Arc::clone(&end));
        let answer = |result: Result<(), StoreError>| {
            if let Err(error) = result {
                tokio::spawn(async move { runner.store_end_again(attempt, again, error).await });
            }
        };
        self.store.end(end, answer).await;
    }

    /// Tries again to store an end. What was done must not be lost, so this goes on however long the
    /// database refuses.
    fn store_end_again(
        self: Arc<Self>,
        attempt: Arc<Attempt>,
        end: Arc<AttemptEnd>,
        error: StoreError,
    ) -> BoxFuture<'static, ()> {
        async move {
            attempt.end_refused(&error);
            let (id, closed) = (end.id, matches!(error, StoreError::Closed));
            let error = with_causes(&error);
            // More tries would keep the server from stopping. The next start recovers the task.
            if closed || self.interrupted.load(Ordering::Relaxed) {
                error!(error, task.id = %id, "cannot store the end of a task");
                return self.attempts.remove(id, end.epoch);
            }
            warn!(error, task.id = %id, "cannot store the end of a task, retrying");
            tokio::time::sleep(STORE_RETRY).await;
            self.store_end(attempt, end).await;
        }
        .boxed()
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

/// Resolves once the limit has elapsed, not counting waits for CPU slots.
async fn deadline(limit: f64, slot_wait: &SlotWait) {
    // A limit beyond the range of a timer is no limit.
    let Ok(limit) = Duration::try_from_secs_f64(limit) else {
        return std::future::pending().await;
    };
    let began = Instant::now();
    loop {
        let worked = began.elapsed().saturating_sub(slot_wait.total());
        let Some(left) = limit.checked_sub(worked).filter(|left| !left.is_zero()) else { return };
        // Does not shrink while the attempt waits for a CPU slot, so check at an interval.
        tokio::time::sleep(left.max(Duration::from_millis(10))).await;
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> Outcome {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    Outcome::Panicked(text.unwrap_or("no message").to_owned())
}
