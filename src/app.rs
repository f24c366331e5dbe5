//! Assembly of the server: the only module besides `cli` that knows every layer.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError, HumanDuration};
use crate::http::{self, Api, ClientLimits, Gate, InvalidOrigin, KeyFileError, KeyRing};
use crate::manager::{LogLimits, ManagerOptions, StartError, TaskManager};
use crate::task::{Fault, TaskType, Timestamp};
use crate::tasks::TaskRegistry;

/// Maximum time from the end of the grace period to exit: half for tasks to stop, a quarter for clients to
/// read their responses, the rest for the database to close.
const STOP_TIME: Duration = Duration::from_secs(1);

/// File descriptors of the server itself: about 20 for the database, then the standard streams, the
/// listener, two runtimes, and files opened now and then, such as the API keys and `/proc`.
const OWN_FILES: usize = 48;
/// File descriptors of a running task: its input, its unfinished output, the hidden folder of that, and
/// the folder of the output.
const FILES_PER_TASK: usize = 4;

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
        let options = ManagerOptions {
            database: config.database.clone(),
            roots: config.roots.clone(),
            state_files: config.api_key_file.iter().chain([&config.file]).cloned().collect(),
            max_running: config.max_running,
            max_pending: config.max_pending,
            max_streams: clients.streams,
            cpu_slots: config.cpu_slots,
            exclusive: config.exclusive,
            type_limits: type_limits(&config.limits, &registry)?,
            retention: config.retention.map(HumanDuration::get),
            logs: LogLimits { retention: config.log_retention, space: config.log_space },
        };
        let origins = http::origins(&config.cors_origins)?;
        let gate = Gate::new(address.ip(), &config.allowed_hosts, origins.clone(), keys.clone());
        let manager = TaskManager::start(options, registry).await?;
        let api = Api::new(manager.clone(), gate, origins);
        Ok(Self { config, listener, address, keys, api, clients, manager })
    }

    /// Returns the bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled, then drains: submissions are rejected, and tasks still running
    /// after the grace period run again at the next start.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self { config, listener, address, keys, api, clients, manager } = self;
        log_settings(&config);
        tracing::info!("listening on http://{address}");
        let stop = CancellationToken::new();
        let server = tokio::spawn(http::serve(listener, api, clients, stop.clone()));
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
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let roots: Vec<_> = config.roots.iter().map(absolute).collect();
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
    tasks.saturating_add(OWN_FILES + config.roots.len())
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

fn type_limits(
    limits: &[(String, usize)],
    registry: &TaskRegistry,
) -> Result<Vec<(TaskType, usize)>, ConfigError> {
    let find = |(name, limit): &(String, usize)| match registry.find(name) {
        Some((task_type, _)) => Ok((task_type, *limit)),
        None => {
            let fault = Fault::choice(&[], "task type", name, registry.names());
            Err(ConfigError::Value(format!("--limit: {}", fault.msg)))
        }
    };
    limits.iter().map(find).collect()
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
