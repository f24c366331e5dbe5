//! Assembly of the server: the only module besides `cli` that knows every layer.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError, HumanDuration};
use crate::http::{self, Api, ClientLimits, Gate, InvalidOrigin, KeyFileError, KeyRing};
use crate::manager::{LogLimits, ManagerOptions, StartError, TaskManager};
use crate::store::state_folder;
use crate::task::{Timestamp, expected_names, with_causes};
use crate::tasks::{FolderOptions, TaskRegistry, TasksFolder, become_subreaper};

/// Name of the tasks folder, beside the database.
const DEFAULT_TASKS_FOLDER: &str = "tasks.d";

/// Maximum time from the end of the grace period to exit: half for tasks to stop, a quarter for clients to
/// read their responses, the rest for the database to close.
const STOP_TIME: Duration = Duration::from_secs(1);

/// File descriptors of the server itself: about 20 for the database, then the standard streams, the
/// listener, two runtimes, and files opened now and then, such as the API keys and `/proc`.
const OWN_FILES: usize = 48;
/// File descriptors of a running task: its input, its unfinished output, the hidden folder of that, and
/// the folder of the output.
const FILES_PER_TASK: usize = 4;
/// Further file descriptors of a task that runs a program, which takes at least one CPU slot: its leash, two
/// pipes, the FIFO of its events and its log.
const FILES_PER_PROGRAM: usize = 5;

/// Startup error.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Invalid settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// System clock before 1970.
    #[error(
        "the system clock shows {0}, but HTTP has no dates before 1970: set the clock and restart"
    )]
    Clock(Timestamp),
    /// Address that cannot be resolved or bound.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// Configured address.
        address: String,
        /// Cause.
        source: io::Error,
    },
    /// Unusable key file.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// Invalid CORS origin.
    #[error("--cors-origin: {0}")]
    Origin(#[from] InvalidOrigin),
    /// Open-file limit too low.
    #[error(
        "the open-file limit is {limit}, but --max-running {max_running} needs at least {needed}: raise \
         the limit (ulimit -n, LimitNOFILE= in systemd) or lower --max-running"
    )]
    TooFewFiles {
        /// Limit of this process.
        limit: u64,
        /// Number of tasks that run at once.
        max_running: usize,
        /// Files for these tasks, the database and a few clients.
        needed: usize,
    },
    /// Processes of an earlier run that may be alive.
    #[error("cannot make sure that no process of an earlier run is left")]
    Processes(#[source] io::Error),
    /// Unusable database or root.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A server that is bound to its address but does not serve yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    keys: Option<Arc<KeyRing>>,
    api: Api,
    clients: ClientLimits,
    manager: TaskManager,
    folder: TasksFolder,
}

impl App {
    /// Builds the server. All startup errors surface here, before the first client connects.
    ///
    /// # Errors
    /// If the address, the keys, the database or a root is unusable.
    pub async fn build(config: Config, registry: TaskRegistry) -> Result<Self, AppError> {
        check_clock(Timestamp::now())?;
        let clients = client_limits(&config)?;
        let keys = config.api_key_file.as_deref().map(KeyRing::read).transpose()?.map(Arc::new);
        let (listener, address) = listen(&config).await?;
        become_subreaper();
        let declared = tasks_folder(&config);
        declared.await_earlier().map_err(AppError::Processes)?;
        let options = ManagerOptions {
            database: config.database.clone(),
            roots: config.roots.clone(),
            state_files: config
                .api_key_file
                .iter()
                .chain([&config.file, &declared.folder])
                .cloned()
                .collect(),
            max_running: config.max_running,
            max_pending: config.max_pending,
            max_streams: clients.streams,
            cpu_slots: config.cpu_slots,
            exclusive: config.exclusive,
            type_limits: config.limits.clone(),
            retention: config.retention.map(HumanDuration::get),
            logs: LogLimits { retention: config.log_retention, space: config.log_space },
        };
        let origins = http::origins(&config.cors_origins)?;
        let gate = Gate::new(address.ip(), &config.allowed_hosts, origins.clone(), keys.clone());
        let folder = TasksFolder::open(declared).await;
        registry.set_declared(folder.types());
        check_limits(&config.limits, &registry);
        let manager = TaskManager::start(options, registry).await?;
        let api = Api::new(manager.clone(), gate, origins);
        Ok(Self { config, listener, address, keys, api, clients, manager, folder })
    }

    /// Returns the bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled, then drains: submissions are rejected, and tasks still running
    /// after the grace period run again at the next start.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self { config, listener, address, keys, api, clients, manager, folder } = self;
        log_settings(&config);
        tracing::info!("listening on http://{address}");
        let stop = CancellationToken::new();
        let server = tokio::spawn(http::serve(listener, api, clients, stop.clone()));
        let following = follow(folder, manager.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(following));
        if let Some(keys) = keys {
            tokio::spawn(stop.clone().run_until_cancelled_owned(keys.follow()));
        }
        shutdown.cancelled().await;
        tracing::info!(grace = ?config.shutdown_grace, "shutting down");
        let end = Instant::now() + config.shutdown_grace + STOP_TIME;
        let stopping = async {
            manager.drain(config.shutdown_grace).await;
            stop.cancel();
            // Fails only on a panic, which the panic hook has logged.
            let _ = server.await;
            manager.close().await;
        };
        match timeout_at(end, stopping).await {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("shutdown timed out; the next start recovers"),
        }
    }
}

/// Logs the effective settings.
fn log_settings(config: &Config) {
    let roots: Vec<_> = config.roots.iter().map(|root| absolute(root)).collect();
    let limits: Vec<_> =
        config.limits.iter().map(|(name, limit)| format!("{name}={limit}")).collect();
    let settings = match config.file.exists() {
        true => absolute(&config.file).display().to_string(),
        false => "none".to_owned(),
    };
    let retention = config.retention.map_or("forever".to_owned(), |time| time.to_string());
    tracing::info!(
        settings,
        database = %absolute(&config.database).display(),
        ?roots,
        max_running = config.max_running,
        max_pending = config.max_pending,
        cpu_slots = config.cpu_slots,
        limits = limits.join(" "),
        retention,
        "starting"
    );
}

/// Fails at startup, because hyper panics on dates before 1970 with every response.
fn check_clock(now: Timestamp) -> Result<(), AppError> {
    if now < Timestamp::from_micros(0) { Err(AppError::Clock(now)) } else { Ok(()) }
}

/// Returns the number of file descriptors reserved for everything but clients.
fn reserved_files(config: &Config) -> usize {
    let tasks = config.max_running.saturating_mul(FILES_PER_TASK);
    let programs = config.cpu_slots.saturating_mul(FILES_PER_PROGRAM);
    tasks.saturating_add(programs).saturating_add(OWN_FILES + config.roots.len())
}

/// Returns the open-file limit that allows all tasks and the maximum number of clients.
pub(crate) fn wanted_files(config: &Config) -> u64 {
    reserved_files(config).saturating_add(ClientLimits::MOST_FILES) as u64
}

/// Derives client limits from the open-file limit, so that clients cannot starve the database and the
/// tasks of file descriptors.
fn client_limits(config: &Config) -> Result<ClientLimits, AppError> {
    // `None` means unlimited.
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let reserved = reserved_files(config);
    let needed = reserved.saturating_add(ClientLimits::LEAST_FILES);
    if limit < needed as u64 {
        return Err(AppError::TooFewFiles { limit, max_running: config.max_running, needed });
    }
    let files = usize::try_from(limit).unwrap_or(usize::MAX) - reserved;
    let clients = ClientLimits::within(files);
    if files < ClientLimits::MOST_FILES {
        let ClientLimits { connections, streams, waits } = clients;
        tracing::warn!(limit, connections, streams, waits, "low open-file limit, fewer clients");
    }
    Ok(clients)
}

/// Where the declared types of a server come from.
pub(crate) fn tasks_folder(config: &Config) -> FolderOptions {
    let database = absolute(&config.database);
    let beside = || database.with_file_name(DEFAULT_TASKS_FOLDER);
    let folder = config.tasks_dir.clone().unwrap_or_else(beside);
    let cpu_slots = config.cpu_slots;
    FolderOptions { folder: absolute(&folder), state: state_folder(&database), cpu_slots }
}

/// The absolute path without symbolic links, as far as it exists.
fn absolute(path: &Path) -> PathBuf {
    let in_folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    let found = path.canonicalize().ok().or_else(in_folder);
    found.or_else(|| std::path::absolute(path).ok()).unwrap_or_else(|| path.to_owned())
}

/// Warns of limits whose types do not exist, or not yet.
fn check_limits(limits: &[(String, usize)], registry: &TaskRegistry) {
    for (name, _) in limits.iter().filter(|(name, _)| registry.find(name).is_none()) {
        let expected = expected_names(name, registry.names().into_iter());
        tracing::warn!("--limit: unknown task type `{name}`, {expected}");
    }
}

/// Hands each change of the tasks folder to the manager.
async fn follow(mut folder: TasksFolder, manager: TaskManager) {
    loop {
        folder.changed().await;
        if let Err(error) = manager.declare(folder.types()).await {
            tracing::error!(error = with_causes(&error), "cannot take over changed task types");
        }
    }
}

async fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), AppError> {
    let failed = |source| AppError::Listen { address: config.listen.clone(), source };
    let address = resolve(&config.listen).await.map_err(failed)?;
    config.check_exposure(address.ip())?;
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Resolves `HOST:PORT` to its first address.
pub(crate) async fn resolve(address: &str) -> io::Result<SocketAddr> {
    let mut found = lookup_host(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => {
            io::Error::new(error.kind(), "expected HOST:PORT such as 127.0.0.1:8000")
        }
        _ => error,
    })?;
    found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_starts_before_1970() {
        let error = check_clock(Timestamp::from_micros(-1)).unwrap_err().to_string();
        assert!(error.contains("shows 1969-12-31T23:59:59.999999Z"), "{error}");
        assert!(check_clock(Timestamp::now()).is_ok());
    }
}
