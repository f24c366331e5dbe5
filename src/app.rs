//! The only place where everything meets: builds the server from its configuration and serves it.

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
use crate::manager::{ManagerOptions, StartError, TaskManager};
use crate::task::{TaskType, Timestamp};
use crate::tasks::TaskRegistry;

/// Longest time from the end of the grace to the end of the process, whatever runs. Tasks have half of it
/// to notice, clients a quarter to take their answers, and the database the rest to close.
const STOP_TIME: Duration = Duration::from_secs(1);

/// Files that are open whatever happens: some 20 of the database, its log and locks, the standard streams,
/// the listener, those of two runtimes; the rest are opened now and then, such as the API keys and `/proc`.
const OWN_FILES: usize = 48;
/// Files of a running task: its input, its unfinished output, and the folder of that.
const FILES_PER_TASK: usize = 3;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The time of day.
    #[error(
        "the clock of this machine shows {0}, and HTTP knows no date before 1970: set it, and start again"
    )]
    Clock(Timestamp),
    /// The address.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// As it was given.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The API keys.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The CORS origins.
    #[error("--cors-origin: {0}")]
    Origin(#[from] InvalidOrigin),
    /// The limit of open files.
    #[error(
        "at most {limit} files may be open at once, and with --max-running {max_running} at least {needed} \
         are needed: raise the limit (ulimit -n, LimitNOFILE= of systemd), or lower --max-running"
    )]
    TooFewFiles {
        /// As it was found.
        limit: u64,
        /// Tasks at once.
        max_running: usize,
        /// Files for them, the database and a few clients.
        needed: usize,
    },
    /// The database or the roots.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A server that listens, but does not answer yet.
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
    /// Builds the server: what can be wrong is found here, before the first client comes.
    ///
    /// # Errors
    /// If the address, the keys, the database or a root cannot be used.
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
        };
        let origins = http::origins(&config.cors_origins)?;
        let gate = Gate::new(address.ip(), &config.allowed_hosts, origins.clone(), keys.clone());
        let manager = TaskManager::start(options, registry).await?;
        let api = Api::new(manager.clone(), gate, origins);
        Ok(Self { config, listener, address, keys, api, clients, manager })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled. Then submissions are refused while running tasks get
    /// their grace, and those that did not end run again at the next start.
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
            // It cannot fail but by a panic, which has been reported.
            let _ = server.await;
            manager.close().await;
        };
        match timeout_at(end, stopping).await {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!(
                "stopped while the disk or a client was still busy: the next start puts it right"
            ),
        }
    }
}

/// Says what the server works with, so that the log explains what it does later.
fn log_settings(config: &Config) {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let roots: Vec<_> = config.roots.iter().map(absolute).collect();
    let limits: Vec<_> =
        config.limits.iter().map(|(name, limit)| format!("{name}={limit}")).collect();
    let settings = match config.file.exists() {
        true => absolute(&config.file).display().to_string(),
        false => "no file".to_owned(),
    };
    let retention = config.retention.map_or("for ever".to_owned(), |time| time.to_string());
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

/// The HTTP library panics at such a date, so it is told once and not with each request.
fn check_clock(now: Timestamp) -> Result<(), AppError> {
    if now < Timestamp::from_micros(0) { Err(AppError::Clock(now)) } else { Ok(()) }
}

/// Files that are set aside for everything but clients.
fn reserved_files(config: &Config) -> usize {
    let tasks = config.max_running.saturating_mul(FILES_PER_TASK);
    tasks.saturating_add(OWN_FILES + config.roots.len())
}

/// Open files for all tasks and the most clients.
pub(crate) fn wanted_files(config: &Config) -> u64 {
    reserved_files(config).saturating_add(ClientLimits::MOST_FILES) as u64
}

/// Sizes what clients may use by the limit of open files, so that they cannot use up those of the
/// database and the tasks.
fn client_limits(config: &Config) -> Result<ClientLimits, AppError> {
    // Where there is no number there is no limit.
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
        tracing::warn!(
            limit,
            connections,
            streams,
            waits,
            "few files may be open, so few clients at once"
        );
    }
    Ok(clients)
}

/// Finds the types that are limited.
fn type_limits(
    limits: &[(String, usize)],
    registry: &TaskRegistry,
) -> Result<Vec<(TaskType, usize)>, ConfigError> {
    let find = |(name, limit): &(String, usize)| match registry.find(name) {
        Some((task_type, _)) => Ok((task_type, *limit)),
        None => {
            let names = registry.names().collect::<Vec<_>>().join(", ");
            Err(ConfigError::Value(format!(
                "--limit: unknown task type `{name}`, expected one of {names}"
            )))
        }
    };
    limits.iter().map(find).collect()
}

async fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), AppError> {
    let failed = |source| AppError::Listen { address: config.listen.clone(), source };
    let not_found = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let form = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidInput => {
            io::Error::new(error.kind(), "expected HOST:PORT such as 127.0.0.1:8000")
        }
        _ => error,
    };
    let address = lookup_host(&config.listen).await.map_err(form).map_err(failed)?.next();
    let address = address.ok_or_else(not_found).map_err(failed)?;
    config.check_exposure(address.ip())?;
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
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
