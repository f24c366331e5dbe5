//! What a task can ask of the server while it runs.

use std::fmt;
use std::panic;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::blocking::CpuSlot;
use super::{
    BlockingWork, Files, MemoryBudget, OutputFile, Progress, SlotWait, TaskError, TaskInfo,
};

/// The hand that the server lends a running task: progress, cancellation, files, CPU time.
///
/// Cloning is cheap, and every clone speaks for the same attempt.
#[derive(Clone)]
pub struct TaskContext {
    pub(super) attempt: Arc<Attempt>,
}

/// One attempt at a task, as its code sees it. The runner makes it and keeps hold of the parts.
pub(crate) struct Attempt {
    pub(crate) info: Arc<TaskInfo>,
    pub(crate) epoch: i64,
    /// Read from `info` when it is first asked for.
    pub(crate) parameters: OnceLock<Map<String, Value>>,
    pub(crate) token: CancellationToken,
    pub(crate) progress: Arc<Progress>,
    pub(crate) files: Arc<Files>,
    pub(crate) blocking: Arc<BlockingWork>,
    pub(crate) memory: MemoryBudget,
    pub(crate) slot_wait: Arc<SlotWait>,
    pub(crate) output: Arc<Mutex<Option<OutputFile>>>,
}

impl TaskContext {
    pub(crate) fn new(attempt: Attempt) -> Self {
        Self { attempt: Arc::new(attempt) }
    }

    /// Tells pollers how far the task is: `percent` from 0 to 100, and a sentence.
    ///
    /// Never waits and never fails, so call it as often as there is news. The latest call wins;
    /// writing it down at a bearable rate is the server's business.
    pub fn update_progress(&self, percent: f64, message: impl Into<String>) {
        self.attempt.progress.update(percent, message.into());
    }

    /// Whether the task should stop.
    pub fn is_cancelled(&self) -> bool {
        self.attempt.token.is_cancelled()
    }

    /// For loops: `ctx.check_cancelled()?` leaves the task when it should stop.
    ///
    /// # Errors
    /// [`TaskError::Cancelled`] if the task should stop.
    pub fn check_cancelled(&self) -> Result<(), TaskError> {
        if self.is_cancelled() { Err(TaskError::Cancelled) } else { Ok(()) }
    }

    /// Returns when the task should stop; for `tokio::select!`.
    pub async fn cancelled(&self) {
        self.attempt.token.cancelled().await;
    }

    /// The token behind the three methods above, for code that takes one.
    pub fn cancellation_token(&self) -> &CancellationToken {
        &self.attempt.token
    }

    /// Sleeps, and wakes at once when the task should stop. A sleep of no time lets other tasks go
    /// first.
    ///
    /// # Errors
    /// [`TaskError::Cancelled`] if the task should stop.
    pub async fn sleep(&self, duration: Duration) -> Result<(), TaskError> {
        if duration.is_zero() {
            self.check_cancelled()?;
            tokio::task::yield_now().await;
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.cancelled() => Err(TaskError::Cancelled),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }

    /// The record of the task as it was when this attempt began.
    pub fn task_info(&self) -> &TaskInfo {
        &self.attempt.info
    }

    /// The parameters as JSON, defaults filled in. The task's own fields hold the same.
    pub fn parameters(&self) -> &Map<String, Value> {
        let text = self.attempt.info.parameters.get();
        // The record of a claimed task is known to hold an object, the task was made from it.
        self.attempt.parameters.get_or_init(|| serde_json::from_str(text).unwrap_or_default())
    }

    /// The input path as the client sent it, for messages. To read it use [`open_input`](Self::open_input).
    pub fn input_file_path(&self) -> Option<&str> {
        self.attempt.info.input_file_path.as_deref()
    }

    /// The output path as the client sent it, for messages. To write it use
    /// [`create_output`](Self::create_output).
    pub fn output_file_path(&self) -> Option<&str> {
        self.attempt.info.output_file_path.as_deref()
    }

    /// Opens the input for reading. Only regular files below the allowed folders can be opened.
    ///
    /// # Errors
    /// If the task was given no input, or it is absent, unreadable, a folder or out of bounds.
    pub fn open_input(&self) -> Result<std::fs::File, TaskError> {
        let path = self
            .input_file_path()
            .ok_or_else(|| TaskError::permanent("input_file_path is required"))?;
        Ok(self.attempt.files.open_input(path)?)
    }

    /// Creates the output, with its folders. It appears under its name, whole and durable, when
    /// the task has returned `Ok`; after any other end nothing is left of it. Writing fails once
    /// the task should stop.
    ///
    /// # Errors
    /// If the task was given no output, if it cannot be created, or on a second call.
    pub fn create_output(&self) -> Result<OutputFile, TaskError> {
        let path = self
            .output_file_path()
            .ok_or_else(|| TaskError::permanent("output_file_path is required"))?;
        // A thread that was given up must not leave a file that nobody looks after.
        self.check_cancelled()?;
        let mut output = self.attempt.output.lock();
        if output.is_some() {
            return Err(TaskError::permanent("create_output was called twice"));
        }
        let attempt = &self.attempt;
        let (id, epoch, token) = (attempt.info.task_id, attempt.epoch, attempt.token.clone());
        let file = attempt.files.create_output(path, id, epoch, token)?;
        *output = Some(file.clone());
        Ok(file)
    }

    /// Runs CPU-bound or blocking work on a thread of its own, so that other tasks go on
    /// meanwhile. The number of such threads is bounded (`--cpu-slots`): while all are taken the
    /// task says so in its message, and its timeout does not tick.
    ///
    /// A closure cannot be stopped from outside. One that takes long calls
    /// [`check_cancelled`](Self::check_cancelled) in its loop; otherwise it keeps its slot after a
    /// timeout.
    ///
    /// # Errors
    /// What `work` returns, or [`TaskError::Cancelled`] if the task should stop before it began.
    ///
    /// # Panics
    /// If `work` panics; the server turns that into a failure of the task.
    pub async fn run_blocking<T, F>(&self, work: F) -> Result<T, TaskError>
    where
        T: Send + 'static,
        F: FnOnce(&TaskContext) -> Result<T, TaskError> + Send + 'static,
    {
        let attempt = &self.attempt;
        let slot = match attempt.blocking.slots().try_acquire() {
            Some(slot) => slot,
            None => self.wait_for_slot().await?,
        };
        let running = attempt.blocking.begin(slot);
        let ctx = self.clone();
        let span = Span::current();
        let thread = tokio::task::spawn_blocking(move || {
            let _running = running;
            ctx.check_cancelled()?;
            span.in_scope(|| work(&ctx))
        });
        match thread.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
            // The runtime is going away before the closure began.
            Err(_) => Err(TaskError::Cancelled),
        }
    }

    async fn wait_for_slot(&self) -> Result<CpuSlot, TaskError> {
        let slots = self.attempt.blocking.slots();
        let message = format!("Waiting for one of {} CPU slots", slots.total());
        self.wait_with_message(message, slots.acquire()).await
    }

    /// Waits for what other tasks hold. The task's message says so, its timeout does not tick, and a
    /// cancellation ends the wait.
    pub(super) async fn wait_with_message<T>(
        &self,
        message: String,
        wait: impl Future<Output = T>,
    ) -> Result<T, TaskError> {
        let attempt = &self.attempt;
        let _waiting = attempt.slot_wait.begin();
        let before = attempt.progress.swap_message(message);
        tokio::select! {
            biased;
            () = self.cancelled() => Err(TaskError::Cancelled),
            got = wait => {
                attempt.progress.swap_message(before);
                Ok(got)
            }
        }
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext").field("info", &self.attempt.info).finish_non_exhaustive()
    }
}
