//! How a manager begins: everything is opened, what a crash left is put right, and what goes on beside
//! the requests is set going.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::{io, process, thread};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::due::Due;
use super::events::Events;
use super::listener::Listener;
use super::live::LiveTasks;
use super::metrics::Metrics;
use super::polls::SlowThreads;
use super::runtime::TaskRuntime;
use super::stats::History;
use super::{Shared, TaskManager, due, events, janitor, progress, stats};
use crate::store::{self, Limits, Opened, Writer};
use crate::task::{CpuSlots, Files, FilesError, MemoryBudget, TaskStatus, TaskType};
use crate::tasks::{InvalidDefaults, TaskRegistry};

/// What a manager needs to know.
#[derive(Clone, Debug)]
pub struct ManagerOptions {
    /// The database file.
    pub database: PathBuf,
    /// The folders that tasks may read and write.
    pub roots: Vec<PathBuf>,
    /// Further files that tasks may not touch, such as the one with the API keys.
    pub state_files: Vec<PathBuf>,
    /// How many tasks run at once.
    pub max_running: usize,
    /// How many tasks may wait.
    pub max_pending: usize,
    /// Event streams at once.
    pub max_streams: usize,
    /// How many CPU-bound closures run at once.
    pub cpu_slots: usize,
    /// Whether a submission is refused while any task is unfinished.
    pub exclusive: bool,
    /// How many tasks of a type run at once; types that are not here are not limited.
    pub type_limits: Vec<(TaskType, usize)>,
    /// How long finished tasks are kept; `None` for ever.
    pub retention: Option<Duration>,
}

/// Why the manager could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database.
    #[error(transparent)]
    Store(#[from] crate::store::OpenError),
    /// The roots.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The defaults of a task.
    #[error(transparent)]
    Defaults(#[from] InvalidDefaults),
    /// The threads for the tasks and the database.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
}

impl TaskManager {
    /// Opens the database, recovers what a crash left, and begins to run what is ready.
    ///
    /// # Errors
    /// If the database or a root cannot be used.
    pub async fn start(
        options: ManagerOptions,
        registry: TaskRegistry,
    ) -> Result<Self, StartError> {
        registry.check()?;
        let database = store::real_path(&options.database)?;
        let mut state_files = store::state_files(&database);
        state_files.extend(options.state_files);
        let files = Arc::new(Files::open(&options.roots, &state_files)?);
        let remove_partial = |path: &str, id, epoch| {
            if files.remove_partial(path, id, epoch) {
                tracing::info!(task.id = %id, path, "removed an unfinished output");
            }
        };
        let mut limits: HashMap<_, _> =
            TaskType::ALL.iter().map(|&task_type| (task_type, options.max_running)).collect();
        for &(task_type, limit) in &options.type_limits {
            limits.insert(task_type, limit.min(options.max_running));
        }
        let store_limits = Limits {
            total: options.max_running,
            by_type: limits.iter().map(|(task_type, &limit)| (task_type.name(), limit)).collect(),
        };
        let Opened { store, writer, due: stored_due, unrunnable } =
            store::open(&database, store_limits, remove_partial).await?;
        let (due, incoming) = mpsc::unbounded_channel();
        for (seq, due_at, run_at) in stored_due {
            // The receiver is right here.
            let _ = due.send(Due::stored(seq, due_at, run_at));
        }
        tokio::spawn(due::promote(store.clone(), incoming));
        tokio::spawn(store::keep_times(store.clone()));
        tokio::spawn(store::find_retries(store.clone()));
        tokio::spawn(janitor::run(store.clone(), options.retention));
        let (events, inbox) = Events::new(options.max_streams);
        let pending = usize::try_from(store.counts().get(TaskStatus::Pending));
        let pending = pending.unwrap_or(usize::MAX);
        let shared = Arc::new(Shared {
            store,
            registry,
            files,
            cpu_slots: CpuSlots::new(options.cpu_slots),
            slow_threads: SlowThreads::new(),
            memory: MemoryBudget::new(),
            runtime: TaskRuntime::start().map_err(StartError::Threads)?,
            max_running: options.max_running,
            limits,
            keys: Arc::default(),
            admission: Admission::new(options.max_pending, options.exclusive, pending, unrunnable),
            live: LiveTasks::new(),
            waiters: Arc::default(),
            events,
            metrics: Metrics::new(),
            history: History::new(),
            due,
            draining: CancellationToken::new(),
            interrupted: AtomicBool::new(false),
        });
        tokio::spawn(progress::run(Arc::clone(&shared)));
        tokio::spawn(stats::run(Arc::clone(&shared)));
        tokio::spawn(events::run(Arc::clone(&shared), inbox));
        let listener = Listener(Arc::clone(&shared));
        start_writer(writer, listener).map_err(StartError::Threads)?;
        Ok(Self { shared })
    }
}

/// Has the writer work on a thread of its own: on a worker of the runtime it would go on only when
/// that worker has answered all the requests that came first, and everyone waits for the writer. It ends
/// when the store is closed, or with the process.
fn start_writer(writer: Writer, listener: Listener) -> io::Result<()> {
    let runtime = Handle::current();
    let write = move || runtime.block_on(writer.run(Arc::new(listener)));
    let thread = move || {
        if catch_unwind(AssertUnwindSafe(write)).is_err() {
            tracing::error!("the writer panicked: nothing can be stored any more, ending");
            process::exit(1);
        }
    };
    thread::Builder::new().name("writer".to_owned()).spawn(thread)?;
    Ok(())
}
