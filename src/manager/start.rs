//! Start of a manager: opens the database and files, recovers from a crash, and starts the background
//! work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{io, process, thread};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::admission::AdmissionLimits;
use super::attempt::{Attempts, Runner, store_progress};
use super::events::{Events, publish_progress};
use super::fold::Fold;
use super::logs::{LogLimits, tidy};
use super::metrics::Metrics;
use super::stats::History;
use super::types::TypeLimits;
use super::waiters::Waiters;
use super::{Inner, TaskManager, due, leftovers};
use crate::store::{self, Opened, Writer};
use crate::task::{CpuSlots, Files, FilesError, LogFolder, StateFolder, TaskId};
use crate::tasks::{InvalidDefaults, TaskRegistry};

/// Settings of a manager.
#[derive(Clone, Debug)]
pub struct ManagerOptions {
    /// The database file.
    pub database: PathBuf,
    /// Folders that tasks may read and write.
    pub roots: Vec<PathBuf>,
    /// Further files that tasks must not touch, such as the API keys.
    pub state_files: Vec<PathBuf>,
    /// Upper limit of running tasks.
    pub max_running: usize,
    /// Upper limit of pending tasks.
    pub max_pending: usize,
    /// Upper limit of event streams.
    pub max_streams: usize,
    /// Number of CPU-bound closures that run at once.
    pub cpu_slots: usize,
    /// Whether to refuse submissions while any task is unfinished.
    pub exclusive: bool,
    /// Upper limits of running tasks by the name of their type, which need not exist; other types have
    /// only the total one.
    pub type_limits: Vec<(String, usize)>,
    /// Lifetime of finished tasks; `None` for unlimited.
    pub retention: Option<Duration>,
    /// Limits on the files of logs.
    pub logs: LogLimits,
}

/// Why the manager could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] crate::store::OpenError),
    /// A root cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A task type has invalid defaults.
    #[error(transparent)]
    Defaults(#[from] InvalidDefaults),
    /// No threads for the tasks or the database.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
}

impl TaskManager {
    /// Opens the database, recovers from a crash, and starts to run ready tasks.
    ///
    /// # Errors
    /// If the database or a root cannot be used.
    pub async fn start(
        options: ManagerOptions,
        registry: TaskRegistry,
    ) -> Result<Self, StartError> {
        registry.check()?;
        let registry = Arc::new(registry);
        let database = store::real_path(&options.database)?;
        let state_files = [store::state_files(&database), options.state_files.clone()].concat();
        let files = Arc::new(Files::open(&options.roots, &state_files)?);
        files.protect(registry.programs());
        let types = TypeLimits::of(&options);
        let Opened { store, writer, due } =
            store::open(&database, types.apply(&registry), remover(&files)).await?;
        tokio::spawn(store.clone().upkeep(options.retention));
        // Only now: the database is locked against other servers.
        let state_folder = Arc::new(StateFolder::open(store::state_folder(&database)));
        tokio::spawn(leftovers::remove(Arc::clone(&state_folder), store.clone()));

        let attempts = Arc::<Attempts>::default();
        let draining = CancellationToken::new();
        let cpu_slots = CpuSlots::new(options.cpu_slots);
        let logs = LogFolder::start(store::state_folder(&database).join("logs"))
            .map_err(StartError::Threads)?;
        let tidying = (Arc::clone(&logs), store.clone(), Arc::clone(&attempts));
        tokio::spawn(tidy(tidying.0, tidying.1, tidying.2, options.logs, options.retention));
        let runner = Runner::new(
            Arc::clone(&attempts),
            store.clone(),
            Arc::clone(&registry),
            Arc::clone(&files),
            Arc::clone(&state_folder),
            Arc::clone(&logs),
            cpu_slots.clone(),
        );
        let runner = Arc::new(runner.map_err(StartError::Threads)?);
        let events = Arc::new(Events::new(options.max_streams));
        tokio::spawn(publish_progress(Arc::clone(&events), Arc::clone(&attempts)));
        tokio::spawn(store_progress(store.clone(), Arc::clone(&attempts), draining.clone()));
        let metrics = Arc::new(Metrics::new());
        metrics.add_types(&registry.names());
        let history = History::start(Arc::clone(&metrics), draining.clone());
        let waiters = Arc::<Waiters>::default();
        let fold = Fold {
            attempts: Arc::clone(&attempts),
            runner: Arc::clone(&runner),
            waiters: Arc::clone(&waiters),
            events: Arc::clone(&events),
            metrics: Arc::clone(&metrics),
            state_folder,
            due: due::start(store.clone(), due),
        };
        start_writer(writer, fold).map_err(StartError::Threads)?;
        let ManagerOptions { max_pending, exclusive, .. } = options;
        let inner = Inner {
            store,
            registry,
            files,
            logs,
            admission: AdmissionLimits { max_pending, exclusive },
            keys: Arc::default(),
            types,
            attempts,
            waiters,
            events,
            metrics,
            history,
            cpu_slots,
            draining,
            runner,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Returns a function that removes the partial output of an interrupted attempt.
fn remover(files: &Files) -> impl Fn(&str, TaskId, i64) {
    |path, id, epoch| {
        if files.remove_partial(path, id, epoch) {
            tracing::info!(task.id = %id, path, "removed a partial output");
        }
    }
}

/// Runs the writer on its own thread. On a worker of the runtime it would wait for the requests that are
/// polled before it, and all changes wait for the writer. It ends when the store is closed, or with the
/// process.
fn start_writer(writer: Writer, fold: Fold) -> io::Result<()> {
    let runtime = Handle::current();
    let write = move || runtime.block_on(writer.run(Arc::new(fold)));
    let thread = move || {
        if catch_unwind(AssertUnwindSafe(write)).is_err() {
            tracing::error!("the writer panicked and nothing can be stored, exiting");
            process::exit(1);
        }
    };
    thread::Builder::new().name("writer".to_owned()).spawn(thread)?;
    Ok(())
}
