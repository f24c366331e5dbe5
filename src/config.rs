//! Settings, by precedence: flags, environment (`TASK_SERVER_*`), `task-server.toml`, defaults.

mod values;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use clap::{Arg, Args, Command, ValueEnum};
use serde::Deserialize;
pub use values::HumanDuration;
use values::{HumanSize, TypeLimit, one_or_many};

use crate::task::expected_names;

/// Settings file, looked up in the working directory.
const DEFAULT_FILE: &str = "task-server.toml";

/// Default lifetime of log files of tasks.
const LOG_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Default space for log files of tasks, in bytes.
const LOG_SPACE: u64 = 2 << 30;

/// Settings as given by flags or by the file, which use the same names.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Address to listen on [default: 127.0.0.1:8000]
    #[arg(long, env = "TASK_SERVER_LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,

    /// SQLite database, created if missing [default: tasks.db]
    #[arg(long, env = "TASK_SERVER_DATABASE", value_name = "FILE")]
    database: Option<PathBuf>,

    /// Folder that tasks may read and write; repeatable [default: the working directory]
    #[arg(long, env = "TASK_SERVER_ROOT", value_name = "DIR", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    root: Vec<PathBuf>,

    /// Folder whose files declare task types [default: tasks.d beside the database]
    #[arg(long, env = "TASK_SERVER_TASKS_DIR", value_name = "DIR")]
    tasks_dir: Option<PathBuf>,

    /// Number of tasks that run at once [default: 64]
    #[arg(long, env = "TASK_SERVER_MAX_RUNNING", value_name = "N")]
    max_running: Option<usize>,

    /// Number of threads for CPU-bound work [default: number of cores]
    #[arg(long, env = "TASK_SERVER_CPU_SLOTS", value_name = "N")]
    cpu_slots: Option<usize>,

    /// Number of pending tasks at which submissions get 429 [default: 100000]
    #[arg(long, env = "TASK_SERVER_MAX_PENDING", value_name = "N")]
    max_pending: Option<usize>,

    /// Number of tasks of one type that run at once; repeatable
    #[arg(long, env = "TASK_SERVER_LIMIT", value_name = "TYPE=N", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    limit: Vec<TypeLimit>,

    /// Age at which finished tasks are erased, such as 30d [default: never]
    #[arg(long, env = "TASK_SERVER_RETENTION", value_name = "TIME")]
    retention: Option<HumanDuration>,

    /// Age at which log files of finished tasks are removed, such as 12h [default: 7d]
    #[arg(long, env = "TASK_SERVER_LOG_RETENTION", value_name = "TIME")]
    log_retention: Option<HumanDuration>,

    /// Space for log files of tasks, such as 500MB; the oldest are removed first [default: 2GiB]
    #[arg(long, env = "TASK_SERVER_LOG_SPACE", value_name = "SIZE")]
    log_space: Option<HumanSize>,

    /// One task at a time: while one is unfinished, submissions get 409
    #[arg(long, env = "TASK_SERVER_EXCLUSIVE", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    exclusive: Option<bool>,

    /// Web origin that may use the API; repeatable
    /// [default: http://localhost:3000, http://127.0.0.1:3000]
    #[arg(long, env = "TASK_SERVER_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    cors_origin: Vec<String>,

    /// Host name to accept besides loopback names and the listen address; repeatable
    #[arg(long, env = "TASK_SERVER_ALLOWED_HOST", value_name = "HOST", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    allowed_host: Vec<String>,

    /// File of API keys (see `task-server key new`); clients send `Authorization: Bearer KEY`
    #[arg(long, env = "TASK_SERVER_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Listen beyond loopback without API keys, on a network that controls access itself
    #[arg(long, env = "TASK_SERVER_ALLOW_UNAUTHENTICATED", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    allow_unauthenticated: Option<bool>,

    /// Time for running tasks to end after SIGTERM or Ctrl-C, such as 30s or 5m [default: 30s]
    #[arg(long, env = "TASK_SERVER_SHUTDOWN_GRACE", value_name = "TIME")]
    shutdown_grace: Option<HumanDuration>,

    /// Log format [default: text]
    #[arg(long, env = "TASK_SERVER_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

/// Log format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Readable lines.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Validated settings with defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST:PORT`, unresolved.
    pub listen: String,
    /// Database file.
    pub database: PathBuf,
    /// Folders that tasks may use; at least one.
    pub roots: Vec<PathBuf>,
    /// Folder whose files declare task types; `None` for the default one.
    pub tasks_dir: Option<PathBuf>,
    /// Number of tasks that run at once; at least one.
    pub max_running: usize,
    /// Number of CPU-bound closures that run at once; at least one.
    pub cpu_slots: usize,
    /// Maximum number of pending tasks.
    pub max_pending: usize,
    /// Number of tasks that run at once, by name of the type.
    pub limits: Vec<(String, usize)>,
    /// Age at which finished tasks are erased; `None` for never.
    pub retention: Option<HumanDuration>,
    /// Age at which log files of finished tasks are removed.
    pub log_retention: Duration,
    /// Space for log files of tasks, in bytes.
    pub log_space: u64,
    /// Accept one unfinished task at a time.
    pub exclusive: bool,
    /// Allowed CORS origins.
    pub cors_origins: Vec<String>,
    /// Additional `Host` names, lower case.
    pub allowed_hosts: Vec<String>,
    /// File of API keys.
    pub api_key_file: Option<PathBuf>,
    /// Allow listening beyond loopback without keys.
    pub allow_unauthenticated: bool,
    /// Time for running tasks to end on shutdown.
    pub shutdown_grace: Duration,
    /// Log format.
    pub log_format: LogFormat,
    /// Settings file, which may not exist.
    pub file: PathBuf,
}

/// Invalid settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Unreadable or malformed settings file.
    #[error("cannot read settings from `{}`: {reason}", path.display())]
    File {
        /// Settings file.
        path: PathBuf,
        /// Cause, with the line where known.
        reason: String,
    },
    /// Invalid value.
    #[error("{0}")]
    Value(String),
}

impl Config {
    /// Merges flags with the settings file: `file`, or else the default one if it exists.
    ///
    /// # Errors
    /// If the file is unreadable or a value is invalid.
    pub fn load(flags: Settings, file: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let stored = match file {
            Some(named) => read_file(named)?,
            None if default.exists() => read_file(default)?,
            None => Settings::default(),
        };
        let mut config = Self::merge(flags, stored)?;
        config.file = file.unwrap_or(default).to_owned();
        Ok(config)
    }

    fn merge(flags: Settings, file: Settings) -> Result<Self, ConfigError> {
        let database = flags.database.or(file.database).unwrap_or_else(|| "tasks.db".into());
        if database.to_str().is_some_and(|name| name.contains("://")) {
            return Err(ConfigError::Value(format!(
                "invalid --database `{}`: expected the path of a SQLite file, not a URL",
                database.display()
            )));
        }
        let cores = available_parallelism().map_or(2, usize::from);
        let limits = first_given([flags.limit, file.limit], &[]);
        let unauthenticated = flags.allow_unauthenticated.or(file.allow_unauthenticated);
        let log_retention = flags.log_retention.or(file.log_retention);
        let log_space = flags.log_space.or(file.log_space);
        let grace = flags.shutdown_grace.or(file.shutdown_grace);
        let hosts = first_given([flags.allowed_host, file.allowed_host], &[]);
        Ok(Self {
            listen: flags.listen.or(file.listen).unwrap_or_else(|| "127.0.0.1:8000".to_owned()),
            database,
            roots: first_given([flags.root, file.root], &[PathBuf::from(".")]),
            tasks_dir: flags.tasks_dir.or(file.tasks_dir),
            max_running: at_least_one("max-running", flags.max_running.or(file.max_running), 64)?,
            cpu_slots: at_least_one("cpu-slots", flags.cpu_slots.or(file.cpu_slots), cores)?,
            max_pending: flags.max_pending.or(file.max_pending).unwrap_or(100_000),
            limits: limits.into_iter().map(|limit| (limit.task_type, limit.limit)).collect(),
            retention: flags.retention.or(file.retention),
            log_retention: log_retention.map_or(LOG_RETENTION, HumanDuration::get),
            log_space: log_space.map_or(LOG_SPACE, HumanSize::bytes),
            exclusive: flags.exclusive.or(file.exclusive).unwrap_or(false),
            cors_origins: first_given(
                [flags.cors_origin, file.cors_origin],
                &["http://localhost:3000".to_owned(), "http://127.0.0.1:3000".to_owned()],
            ),
            allowed_hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            api_key_file: flags.api_key_file.or(file.api_key_file),
            allow_unauthenticated: unauthenticated.unwrap_or(false),
            shutdown_grace: grace.map_or(Duration::from_secs(30), HumanDuration::get),
            log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
            file: PathBuf::new(),
        })
    }

    /// Refuses to listen beyond loopback without authentication, unless allowed explicitly.
    ///
    /// # Errors
    /// If `address` is not loopback and neither API keys nor the override are configured.
    pub fn check_exposure(&self, address: IpAddr) -> Result<(), ConfigError> {
        let guarded = self.api_key_file.is_some() || self.allow_unauthenticated;
        if address.is_loopback() || guarded {
            return Ok(());
        }
        Err(ConfigError::Value(format!(
            "--listen {} is reachable from other machines, and without API keys anyone there could \
             run tasks: add --api-key-file FILE (see `task-server key new`), or \
             --allow-unauthenticated on a network that controls access itself",
            self.listen
        )))
    }
}

fn read_file(path: &Path) -> Result<Settings, ConfigError> {
    let failed = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    check_names(&text).map_err(failed)?;
    toml::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// Rejects unknown settings and suggests the closest name. Malformed TOML passes, since the parser
/// reports its position.
fn check_names(text: &str) -> Result<(), String> {
    let settings = Settings::augment_args(Command::new(""));
    let known: Vec<_> = settings.get_arguments().filter_map(Arg::get_long).collect();
    let given: toml::Table = text.parse().unwrap_or_default();
    match given.keys().find(|&name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let expected = expected_names(name, known.iter().copied());
            Err(format!("unknown setting `{name}`, {expected}"))
        }
    }
}

fn first_given<T: Clone>(given: [Vec<T>; 2], default: &[T]) -> Vec<T> {
    given.into_iter().find(|list| !list.is_empty()).unwrap_or_else(|| default.to_vec())
}

fn at_least_one(name: &str, given: Option<usize>, default: usize) -> Result<usize, ConfigError> {
    match given.unwrap_or(default) {
        0 => Err(ConfigError::Value(format!("invalid --{name} 0: expected at least 1"))),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let flags = Settings { max_running: Some(3), ..Settings::default() };
        let stored = file("max-running = 9\nmax-pending = 7\nshutdown-grace = '2m'");
        let config = Config::merge(flags, stored).unwrap();
        assert_eq!((config.max_running, config.max_pending), (3, 7));
        assert_eq!(config.shutdown_grace, Duration::from_secs(120));
        assert_eq!(config.listen, "127.0.0.1:8000");
    }

    #[test]
    fn unknown_settings_in_the_file_are_rejected() {
        assert_eq!(check_names("max-running = 3\nlimit = []\nretention = '1d'"), Ok(()));
        let error = check_names("max_runing = 3").unwrap_err();
        assert_eq!(error, "unknown setting `max_runing`, did you mean `max-running`?");
    }

    #[test]
    fn a_list_of_one_needs_no_brackets() {
        let stored =
            file("root = 'data'\nlimit = 'tokenize=2'\ncors-origin = ['https://a', 'https://b']");
        let config = Config::merge(Settings::default(), stored).unwrap();
        assert_eq!(config.roots, [Path::new("data")]);
        assert_eq!(config.limits, [("tokenize".to_owned(), 2)]);
        assert_eq!(config.cors_origins.len(), 2);
    }

    #[test]
    fn invalid_values_in_the_file_are_rejected_with_an_example() {
        for (text, example) in [
            ("retention = 30", "\"30d\""),
            ("shutdown-grace = 5", "\"5s\""),
            ("log-space = 500", "\"500MB\""),
            ("limit = 2", "\"tokenize=2\""),
            ("[limit]\ntokenize = 2", "\"tokenize=2\""),
            ("limit = ['tokenize']", "tokenize=2"),
            ("root = 5", "string"),
        ] {
            let error = toml::from_str::<Settings>(text).unwrap_err().to_string();
            assert!(error.contains(example) && error.contains("line 1"), "{text}: {error}");
        }
    }

    #[test]
    fn listening_beyond_loopback_requires_keys() {
        let config = Config::merge(Settings::default(), Settings::default()).unwrap();
        assert!(config.check_exposure([127, 0, 0, 1].into()).is_ok());
        let error = config.check_exposure([0, 0, 0, 0].into()).unwrap_err().to_string();
        assert!(error.contains("--api-key-file"), "{error}");
    }
}
