//! Reads of tasks: running ones from memory, others from the database, pending ones with their queue
//! reason.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use super::TaskManager;
use super::attempt::Stamp;
use super::errors::OutputError;
use super::rendered::Rendered;
use crate::store::TypeLimit;
use crate::store::{Cursor, ListFilter, MAX_POSITION, Positions, StoreError, TaskPage, TaskRecord};
use crate::task::{Files, PathError, PathUse, Published, TaskId, TaskInfo, TaskStatus};

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) tasks: Vec<TaskInfo>,
    /// Start of the next page, if there is one.
    pub(crate) next: Option<Cursor>,
}

/// Load of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) pending: usize,
    /// Threads of abandoned attempts.
    pub(crate) abandoned_threads: usize,
    /// Whether those hold all CPU slots, so that blocking work has to wait.
    pub(crate) cpu_slots_exhausted: bool,
}

impl TaskManager {
    /// Returns the current state of a task.
    pub(crate) async fn get(&self, id: TaskId) -> Result<Option<Rendered>, StoreError> {
        if let Some(attempt) = self.inner.attempts.get(id) {
            return Ok(Some(attempt.render()));
        }
        Ok(self.stored(id).await?.map(|record| Rendered::new(&record.info)))
    }

    /// Waits up to `limit` for a task to end, and returns its state. Calls `hold` before a wait, which may
    /// refuse it.
    pub(crate) async fn wait<E: From<StoreError>>(
        &self,
        id: TaskId,
        limit: Duration,
        hold: impl FnOnce() -> Result<(), E>,
    ) -> Result<Option<Rendered>, E> {
        let waiter = self.inner.waiters.register(id);
        let task = self.get(id).await?;
        if limit.is_zero() || task.as_ref().is_none_or(|task| task.is_final) {
            return Ok(task);
        }
        hold()?;
        tokio::select! {
            () = waiter.ended() => {}
            () = tokio::time::sleep(limit) => {}
            () = self.inner.draining.cancelled() => {}
        }
        Ok(self.get(id).await?)
    }

    /// Returns the current state of a task with its stamp.
    pub(super) async fn state(&self, id: TaskId) -> Result<Option<(Stamp, TaskInfo)>, StoreError> {
        if let Some(attempt) = self.inner.attempts.get(id) {
            return Ok(Some(attempt.snapshot()));
        }
        Ok(self.stored(id).await?.map(stamped))
    }

    /// Returns a page of tasks, newest first.
    pub(crate) async fn list(&self, filter: &ListFilter) -> Result<Page, StoreError> {
        let (states, next) = self.states(filter).await?;
        Ok(Page { tasks: states.into_iter().map(|(_, info)| info).collect(), next })
    }

    /// Returns a page of states with their stamps, newest first, and the start of the next page.
    pub(super) async fn states(
        &self,
        filter: &ListFilter,
    ) -> Result<(Vec<(Stamp, TaskInfo)>, Option<Cursor>), StoreError> {
        let TaskPage { mut records, next } = self.inner.store.reads.list(filter).await?;
        self.explain(&mut records).await?;
        let states = records.into_iter().map(|record| self.overlay(record)).collect();
        Ok((states, next))
    }

    /// Returns the task that started last, else the newest pending one.
    pub(crate) async fn current(&self) -> Result<Option<TaskInfo>, StoreError> {
        if let Some(attempt) = self.inner.attempts.newest() {
            return Ok(Some(attempt.snapshot().1));
        }
        let record = self.inner.store.reads.newest_pending().await?;
        Ok(self.explained(record).await?.map(|record| record.info))
    }

    /// Opens the output of a completed task, or lists its files `after` a path if it is a folder. Also
    /// returns its path as submitted. A later task may have replaced the output.
    pub(crate) async fn open_output(
        &self,
        id: TaskId,
        after: Option<String>,
    ) -> Result<(String, Published), OutputError> {
        self.with_output(id, move |files, path| files.open_published(path, after.as_deref())).await
    }

    /// Opens one file of an output that is a folder.
    pub(crate) async fn open_output_file(
        &self,
        id: TaskId,
        inner: String,
    ) -> Result<File, OutputError> {
        let opened =
            self.with_output(id, move |files, path| files.open_published_file(path, &inner));
        Ok(opened.await?.1)
    }

    /// Calls `open` on a blocking thread with the output path of a completed task.
    async fn with_output<T: Send + 'static>(
        &self,
        id: TaskId,
        open: impl FnOnce(&Files, &str) -> Result<T, PathError> + Send + 'static,
    ) -> Result<(String, T), OutputError> {
        let (_, info) = self.state(id).await?.ok_or(OutputError::Unknown)?;
        if info.status != TaskStatus::Completed {
            return Err(OutputError::NotCompleted(info.status));
        }
        let path = info.output_file_path.ok_or(OutputError::NoPath)?;
        let registered = self.inner.registry.find(&info.task_type);
        let is_optional =
            registered.is_some_and(|(_, task)| task.paths().output == PathUse::Optional);
        let files = Arc::clone(&self.inner.files);
        let opened = tokio::task::spawn_blocking(move || match open(&files, &path) {
            Ok(opened) => Ok((path, opened)),
            Err(error) if is_optional && error.is_absence() => Err(OutputError::NotWritten(path)),
            Err(error) => Err(error.into()),
        });
        opened.await.unwrap_or(Err(OutputError::Panicked))
    }

    pub(crate) fn load(&self) -> Load {
        let inner = &self.inner;
        Load {
            running: inner.attempts.len(),
            pending: inner.store.reads.counts().unfinished().pending,
            abandoned_threads: inner.cpu_slots.abandoned(),
            cpu_slots_exhausted: inner.cpu_slots.exhausted(),
        }
    }

    async fn stored(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        let record = self.inner.store.reads.get(id).await?;
        self.explained(record).await
    }

    /// Adds the latest progress to a task that is running in the database.
    fn overlay(&self, record: TaskRecord) -> (Stamp, TaskInfo) {
        if record.info.status == TaskStatus::Running
            && let Some(attempt) = self.inner.attempts.get(record.info.task_id)
            && attempt.epoch == record.epoch
        {
            return attempt.snapshot();
        }
        stamped(record)
    }

    async fn explained(
        &self,
        mut record: Option<TaskRecord>,
    ) -> Result<Option<TaskRecord>, StoreError> {
        self.explain(record.as_mut_slice()).await?;
        Ok(record)
    }

    /// Sets the queue reason of each pending task, and the queue position of each ready one.
    async fn explain(&self, records: &mut [TaskRecord]) -> Result<(), StoreError> {
        let mut positions = None;
        for record in records {
            if record.info.status != TaskStatus::Pending {
                continue;
            }
            record.info.waiting_because = Some(self.queue_reason(record));
            let unknown = self.inner.store.reads.limits().of_type(&record.info.task_type).is_none();
            if unknown || record.unrunnable || record.due_at.is_some() || record.is_suspect() {
                continue;
            }
            let positions: &Arc<Positions> = match &mut positions {
                Some(positions) => positions,
                none => none.insert(self.inner.store.reads.positions().await?),
            };
            // Beyond the computed positions.
            let position = positions.get(&record.seq).copied().unwrap_or(MAX_POSITION + 1);
            record.info.queue_position = Some(position);
        }
        Ok(())
    }

    fn queue_reason(&self, record: &TaskRecord) -> String {
        let info = &record.info;
        if record.unrunnable {
            return info.message.clone();
        }
        if let Some(due_at) = record.due_at {
            let reason = if info.run_at == Some(due_at) { "scheduled for" } else { "retry at" };
            return format!("{reason} {due_at}");
        }
        let (limits, attempts) = (self.inner.store.reads.limits(), &self.inner.attempts);
        let Some(TypeLimit { tasks: limit, cpus, .. }) = limits.of_type(&info.task_type) else {
            return self.unrunnable_because(&info.task_type);
        };
        if self.is_draining() {
            return "the server is shutting down".to_owned();
        }
        let running = attempts.of_type(&info.task_type);
        if running >= limit && limit < limits.total {
            return format!("{running} of {limit} {} tasks running", info.task_type);
        }
        let running = attempts.len();
        if running >= limits.total {
            return format!("{running} of {} tasks running", limits.total);
        }
        let taken = attempts.cpus(&limits);
        if cpus > 0 && taken + cpus > limits.cpus {
            return format!("{taken} of {} CPU slots taken, this task needs {cpus}", limits.cpus);
        }
        if record.is_suspect() {
            return "the server stopped twice while this task ran, so it waits until no other such \
                    task runs"
                .to_owned();
        }
        "about to run".to_owned()
    }
}

impl TaskManager {
    /// Why tasks of this type cannot run.
    fn unrunnable_because(&self, task_type: &str) -> String {
        let found = self.inner.registry.find(task_type);
        match found.and_then(|(_, task)| task.about().problem.clone()) {
            Some(problem) => format!("task type `{task_type}` cannot run: {problem}"),
            None => format!("this server does not know task type `{task_type}`"),
        }
    }
}

fn stamped(record: TaskRecord) -> (Stamp, TaskInfo) {
    (Stamp::of(record.epoch, record.info.status), record.info)
}
