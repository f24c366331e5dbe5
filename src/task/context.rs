//! The interface between a running task and the server.

use std::panic;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Span;

use super::{
    AttemptFolders, BlockingWork, Ending, Files, MemoryBudget, Output, OutputFile, PathError,
    Paths, Progress, ReservedCpus, SlotWait, TaskError, TaskInfo, TaskLog,
};

/// Services of the server for a running task: progress, cancellation, files, CPU time.
///
/// Cheap to clone; all clones belong to the same attempt.
#[derive(Clone, Debug)]
pub struct TaskContext {
    pub(super) attempt: Arc<Attempt>,
}

/// State of one attempt. The runner creates it and shares its parts.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) info: Arc<TaskInfo>,
    pub(crate) epoch: i64,
    /// Parsed from `info` on first use.
    pub(crate) parameters: OnceLock<Map<String, Value>>,
    pub(crate) token: CancellationToken,
    pub(crate) progress: Arc<Progress>,
    pub(crate) files: Arc<Files>,
    pub(crate) blocking: Arc<BlockingWork>,
    pub(crate) memory: MemoryBudget,
    pub(crate) slot_wait: Arc<SlotWait>,
    pub(crate) output: Arc<Mutex<Option<Output>>>,
    pub(crate) folders: Arc<AttemptFolders>,
    pub(crate) log: TaskLog,
    pub(crate) ending: Arc<Ending>,
}

impl TaskContext {
    pub(crate) fn new(attempt: Attempt) -> Self {
        Self { attempt: Arc::new(attempt) }
    }

    /// Reports progress to clients: `percent` from 0 to 100, and a short message.
    ///
    /// Never blocks and never fails, so call it as often as you like: the latest call wins, and the
    /// server limits the rate of its database writes.
    pub fn update_progress(&self, percent: f64, message: impl Into<String>) {
        self.attempt.progress.update(percent, message.into());
    }

    /// Reports what is given, and keeps the rest as it is.
    pub(crate) fn report(&self, percent: Option<f64>, message: Option<String>) {
        self.attempt.progress.report(percent, message);
    }

    /// Returns whether the task has been asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.attempt.token.is_cancelled()
    }

    /// Cancellation check for loops: `ctx.check_cancelled()?`.
    ///
    /// # Errors
    /// [`TaskError::Cancelled`] if the task has been asked to stop.
    pub fn check_cancelled(&self) -> Result<(), TaskError> {
        if self.is_cancelled() { Err(TaskError::Cancelled) } else { Ok(()) }
    }

    /// Resolves when the task is asked to stop; for `tokio::select!`.
    pub async fn cancelled(&self) {
        self.attempt.token.cancelled().await;
    }

    /// The token behind the three methods above, for libraries that take one.
    pub fn cancellation_token(&self) -> &CancellationToken {
        &self.attempt.token
    }

    /// Sleeps, but returns at once when the task is asked to stop. A zero duration just yields.
    ///
    /// # Errors
    /// [`TaskError::Cancelled`] if the task has been asked to stop.
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

    /// Log of this attempt, which clients can read and follow. What the task says with `tracing` from level
    /// INFO on is in it too.
    pub fn log(&self) -> &TaskLog {
        &self.attempt.log
    }

    /// Record of the task at the start of this attempt.
    pub fn task_info(&self) -> &TaskInfo {
        &self.attempt.info
    }

    /// The parameters as JSON, including defaults. The task's own fields hold the same values.
    pub fn parameters(&self) -> &Map<String, Value> {
        let text = self.attempt.info.parameters.get();
        // Known to be an object: the task itself was parsed from it.
        self.attempt.parameters.get_or_init(|| serde_json::from_str(text).unwrap_or_default())
    }

    /// Input path as sent by the client, for messages. [`open_input`](Self::open_input) opens it.
    pub fn input_file_path(&self) -> Option<&str> {
        self.attempt.info.input_file_path.as_deref()
    }

    /// Output path as sent by the client, for messages. See [`create_output`](Self::create_output).
    pub fn output_file_path(&self) -> Option<&str> {
        self.attempt.info.output_file_path.as_deref()
    }

    /// Opens the input for reading. It has to be a regular file below one of the allowed folders.
    ///
    /// # Errors
    /// If there is no input path, or the file is absent, unreadable, irregular or out of bounds.
    pub fn open_input(&self) -> Result<std::fs::File, TaskError> {
        Ok(self.attempt.files.open_input(self.required_input()?)?)
    }

    /// Absolute path of the input, for a program that opens it by itself. Unlike for
    /// [`open_input`](Self::open_input), the input may also be a folder: many programs take one.
    ///
    /// Otherwise it is checked as there, but the program may find something else by the time it opens it.
    ///
    /// # Errors
    /// As for [`open_input`](Self::open_input).
    pub fn locate_input(&self) -> Result<PathBuf, TaskError> {
        Ok(self.attempt.files.locate_input(self.required_input()?)?)
    }

    fn required_input(&self) -> Result<&str, TaskError> {
        self.input_file_path().ok_or_else(|| TaskError::permanent("input_file_path is required"))
    }

    /// Creates the output and missing parent folders. The complete, durable file gets its name
    /// after the task has returned `Ok`; otherwise it is removed. Writes fail once the task is
    /// asked to stop.
    ///
    /// # Errors
    /// If the task has no output path, the file cannot be created, or on a second call.
    pub fn create_output(&self) -> Result<OutputFile, TaskError> {
        let attempt = &self.attempt;
        let (id, epoch, token) = (attempt.info.task_id, attempt.epoch, attempt.token.clone());
        self.begin_output(|path| {
            let file = attempt.files.create_output(path, id, epoch, token)?;
            Ok((Output::File(file.clone()), file))
        })
    }

    /// Absolute path at which a program has to write the output, in a hidden folder; a folder already
    /// exists there, and is empty. `paths` are those of the task's type. Parent folders are created.
    ///
    /// The output is published after the task has returned `Ok`. Then a required output has to be there; an
    /// optional folder that is empty counts as absent. By then all processes that write to it must have
    /// ended.
    ///
    /// # Errors
    /// As for [`create_output`](Self::create_output), which cannot be called as well.
    pub fn reserve_output(&self, paths: Paths) -> Result<PathBuf, TaskError> {
        let attempt = &self.attempt;
        self.begin_output(|path| {
            let reserved = attempt.files.reserve_output(path, paths, &attempt.info, attempt.epoch);
            let (reserved, place) = reserved?;
            Ok((Output::Reserved(Arc::new(reserved)), place))
        })
    }

    /// Fills the cell of the output, once.
    fn begin_output<T>(
        &self,
        begin: impl FnOnce(&str) -> Result<(Output, T), PathError>,
    ) -> Result<T, TaskError> {
        let path = self
            .output_file_path()
            .ok_or_else(|| TaskError::permanent("output_file_path is required"))?;
        let mut output = self.attempt.output.lock();
        // Under the lock: the runner no longer cleans up after an abandoned thread.
        self.check_cancelled()?;
        if output.is_some() {
            return Err(TaskError::permanent("the output was created twice"));
        }
        let (begun, answer) = begin(path)?;
        *output = Some(begun);
        Ok(answer)
    }

    /// Absolute path of a private folder for temporary files, empty at first. It is removed when the
    /// attempt ends.
    ///
    /// # Errors
    /// If the folder cannot be created, or [`TaskError::Cancelled`] if the attempt is over.
    pub fn work_dir(&self) -> Result<PathBuf, TaskError> {
        self.attempt.folders.work_dir()
    }

    /// Absolute path of a private folder for checkpoints. It is kept across attempts and restarts of the
    /// server, until the task has ended.
    ///
    /// # Errors
    /// As for [`work_dir`](Self::work_dir).
    pub fn state_dir(&self) -> Result<PathBuf, TaskError> {
        self.attempt.folders.state_dir()
    }

    /// Runs CPU-bound or blocking work on a separate thread, so that it does not hold up other
    /// tasks. The number of such threads is limited by `--cpu-slots`. While the task waits for one,
    /// its message says so and its timeout is paused.
    ///
    /// A closure cannot be stopped from outside and keeps its CPU slot even after a timeout, so
    /// call [`check_cancelled`](Self::check_cancelled) in long loops.
    ///
    /// # Errors
    /// The error of `work`, or [`TaskError::Cancelled`] if the task is cancelled before it begins.
    ///
    /// # Panics
    /// If `work` panics; the server turns that into a failure of the task.
    pub async fn run_blocking<T, F>(&self, work: F) -> Result<T, TaskError>
    where
        T: Send + 'static,
        F: FnOnce(&TaskContext) -> Result<T, TaskError> + Send + 'static,
    {
        let attempt = &self.attempt;
        let slots = attempt.blocking.slots();
        let slot = match slots.try_acquire() {
            Some(slot) => slot,
            None => {
                let message = format!("Waiting for one of {} CPU slots", slots.total());
                self.wait_with_message(message, slots.acquire()).await?
            }
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
            // The runtime shut down before the closure began.
            Err(_) => Err(TaskError::Cancelled),
        }
    }

    /// Waits for a number of CPU slots, as far as there are that many.
    ///
    /// # Errors
    /// [`TaskError::Cancelled`] if the task is cancelled meanwhile.
    pub(crate) async fn reserve_cpus(&self, cpus: usize) -> Result<ReservedCpus, TaskError> {
        let slots = self.attempt.blocking.slots();
        let cpus = cpus.min(slots.total());
        match slots.try_reserve(cpus) {
            Some(reserved) => Ok(reserved),
            None => {
                let message = format!("Waiting for {cpus} of {} CPU slots", slots.total());
                self.wait_with_message(message, slots.reserve(cpus)).await
            }
        }
    }

    /// Keeps the attempt from ending, even after a cancellation or a timeout, until the guard is
    /// dropped. For what surely ends soon after the task is asked to stop, such as processes.
    pub(crate) fn hold_end(&self) -> TaskTrackerToken {
        self.attempt.ending.hold()
    }

    /// Resolves when the server is about to exit: the attempt must end at once.
    pub(crate) async fn hurried(&self) {
        self.attempt.ending.hurried().await;
    }

    /// Waits for a resource that other tasks hold, with this message and a paused timeout. A
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
