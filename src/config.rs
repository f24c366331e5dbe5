//! Settings: flags, then environment (`TASK_SERVER_*`), then `task-server.toml`, then defaults.

use std::net::IpAddr;
mod values;

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use clap::{Arg, Args, Command, ValueEnum};
use serde::Deserialize;
pub use values::HumanDuration;
use values::{TypeLimit, one_or_many};

use crate::task::expected_names;

/// Read from the working directory if it is there.
const DEFAULT_FILE: &str = "task-server.toml";

/// What can be set, each one optional. The same names serve as flags and in the file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Address to listen on [default: 127.0.0.1:8000]
    #[arg(long, env = "TASK_SERVER_LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,

    /// SQLite database, made if it is absent [default: tasks.db]
    #[arg(long, env = "TASK_SERVER_DATABASE", value_name = "FILE")]
    database: Option<PathBuf>,

    /// Folder that tasks may read and write; repeatable [default: the working directory]
    #[arg(long = "root", env = "TASK_SERVER_ROOT", value_name = "DIR", value_delimiter = ',')]
    #[serde(rename = "root", deserialize_with = "one_or_many")]
    roots: Vec<PathBuf>,

    /// How many tasks run at once [default: 64]
    #[arg(long, env = "TASK_SERVER_MAX_RUNNING", value_name = "N")]
    max_running: Option<usize>,

    /// How many threads do CPU-bound work for tasks [default: the number of cores]
    #[arg(long, env = "TASK_SERVER_CPU_SLOTS", value_name = "N")]
    cpu_slots: Option<usize>,

    /// How many tasks may wait; more are answered 429 [default: 100000]
    #[arg(long, env = "TASK_SERVER_MAX_PENDING", value_name = "N")]
    max_pending: Option<usize>,

    /// How many tasks of one type run at once; repeatable
    #[arg(long = "limit", env = "TASK_SERVER_LIMIT", value_name = "TYPE=N", value_delimiter = ',')]
    #[serde(rename = "limit", deserialize_with = "one_or_many")]
    limits: Vec<TypeLimit>,

    /// How long finished tasks are kept, such as 30d; without it for ever
    #[arg(long, env = "TASK_SERVER_RETENTION", value_name = "TIME")]
    retention: Option<HumanDuration>,

    /// One task at a time: a submission while one is unfinished is answered 409
    #[arg(long, env = "TASK_SERVER_EXCLUSIVE", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    exclusive: Option<bool>,

    /// Web origin whose pages may use the API; repeatable
    /// [default: http://localhost:3000, http://127.0.0.1:3000]
    #[arg(
        long = "cors-origin",
        env = "TASK_SERVER_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    #[serde(rename = "cors-origin", deserialize_with = "one_or_many")]
    cors_origins: Vec<String>,

    /// Name by which clients may call this server, beside loopback names and the listen address;
    /// repeatable
    #[arg(
        long = "allowed-host",
        env = "TASK_SERVER_ALLOWED_HOST",
        value_name = "HOST",
        value_delimiter = ','
    )]
    #[serde(rename = "allowed-host", deserialize_with = "one_or_many")]
    allowed_hosts: Vec<String>,

    /// File with the API keys, made by `task-server key new`; clients send
    /// `Authorization: Bearer KEY`
    #[arg(long, env = "TASK_SERVER_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Listen beyond loopback without API keys, for a private network behind another gate
    #[arg(long, env = "TASK_SERVER_ALLOW_UNAUTHENTICATED", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    allow_unauthenticated: Option<bool>,

    /// How long running tasks may go on after SIGTERM or Ctrl-C, such as 30s or 5m [default: 30s]
    #[arg(long, env = "TASK_SERVER_SHUTDOWN_GRACE", value_name = "TIME")]
    shutdown_grace: Option<HumanDuration>,

    /// How log lines are written [default: text]
    #[arg(long, env = "TASK_SERVER_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that the server needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port`, not resolved yet.
    pub listen: String,
    /// The database file.
    pub database: PathBuf,
    /// The folders that tasks may use; at least one.
    pub roots: Vec<PathBuf>,
    /// How many tasks run at once; at least one.
    pub max_running: usize,
    /// How many CPU-bound closures run at once; at least one.
    pub cpu_slots: usize,
    /// How many tasks may wait.
    pub max_pending: usize,
    /// How many tasks of a type run at once, by the name of the type.
    pub limits: Vec<(String, usize)>,
    /// How long finished tasks are kept; `None` for ever.
    pub retention: Option<HumanDuration>,
    /// One unfinished task at a time.
    pub exclusive: bool,
    /// Origins for CORS.
    pub cors_origins: Vec<String>,
    /// Names by which the server may be called, lower case.
    pub allowed_hosts: Vec<String>,
    /// Where the API keys are.
    pub api_key_file: Option<PathBuf>,
    /// Whether it may listen beyond loopback without keys.
    pub allow_unauthenticated: bool,
    /// How long running tasks may go on when the server stops.
    pub shutdown_grace: Duration,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// The file that settings are read from, whether it is there or not.
    pub file: PathBuf,
}

/// A setting that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("cannot read settings from `{}`: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A value.
    #[error("{0}")]
    Value(String),
}

impl Config {
    /// Settles every setting. `file` names the settings file; without it the default one is read
    /// if it is there.
    ///
    /// # Errors
    /// If the file cannot be read or a value makes no sense.
    pub fn load(flags: Settings, file: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let stored = match file {
            Some(named) => read_file(named)?,
            None if default.exists() => read_file(default)?,
            None => Settings::default(),
        };
        let mut config = Self::settle(flags, stored)?;
        config.file = file.unwrap_or(default).to_owned();
        Ok(config)
    }

    fn settle(flags: Settings, file: Settings) -> Result<Self, ConfigError> {
        let database = flags.database.or(file.database).unwrap_or_else(|| "tasks.db".into());
        if database.to_str().is_some_and(|name| name.contains("://")) {
            return Err(ConfigError::Value(format!(
                "--database `{}` is a URL, expected the path of a SQLite file",
                database.display()
            )));
        }
        let cores = available_parallelism().map_or(2, usize::from);
        let limits = first_given([flags.limits, file.limits], &[]);
        let hosts = first_given([flags.allowed_hosts, file.allowed_hosts], &[]);
        Ok(Self {
            listen: flags.listen.or(file.listen).unwrap_or_else(|| "127.0.0.1:8000".to_owned()),
            database,
            roots: first_given([flags.roots, file.roots], &[PathBuf::from(".")]),
            max_running: at_least_one("max-running", flags.max_running.or(file.max_running), 64)?,
            cpu_slots: at_least_one("cpu-slots", flags.cpu_slots.or(file.cpu_slots), cores)?,
            max_pending: flags.max_pending.or(file.max_pending).unwrap_or(100_000),
            limits: limits.into_iter().map(|limit| (limit.task_type, limit.limit)).collect(),
            retention: flags.retention.or(file.retention),
            exclusive: flags.exclusive.or(file.exclusive).unwrap_or(false),
            cors_origins: first_given(
                [flags.cors_origins, file.cors_origins],
                &["http://localhost:3000".to_owned(), "http://127.0.0.1:3000".to_owned()],
            ),
            allowed_hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            api_key_file: flags.api_key_file.or(file.api_key_file),
            allow_unauthenticated: flags
                .allow_unauthenticated
                .or(file.allow_unauthenticated)
                .unwrap_or(false),
            shutdown_grace: flags
                .shutdown_grace
                .or(file.shutdown_grace)
                .map_or(Duration::from_secs(30), HumanDuration::get),
            log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
            file: PathBuf::new(),
        })
    }

    /// Refuses to serve strangers.
    ///
    /// # Errors
    /// If `address` can be reached from other machines and nothing checks who calls.
    pub fn check_exposure(&self, address: IpAddr) -> Result<(), ConfigError> {
        let guarded = self.api_key_file.is_some() || self.allow_unauthenticated;
        if address.is_loopback() || guarded {
            return Ok(());
        }
        Err(ConfigError::Value(format!(
            "--listen {} can be reached from other machines, and without API keys anyone there \
             could run tasks: add --api-key-file FILE (`task-server key new` makes one), or \
             --allow-unauthenticated for a private network behind another gate",
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

/// Refuses settings that do not exist, with the nearest one that does. Text that is not TOML passes: the
/// parser says where it breaks.
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
        0 => Err(ConfigError::Value(format!("--{name} is 0, expected at least 1"))),
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
        let config = Config::settle(flags, stored).unwrap();
        assert_eq!((config.max_running, config.max_pending), (3, 7));
        assert_eq!(config.shutdown_grace, Duration::from_secs(120));
        assert_eq!(config.listen, "127.0.0.1:8000");
    }

    #[test]
    fn an_unknown_name_in_the_file_is_an_error() {
        assert_eq!(check_names("max-running = 3\nlimit = []\nretention = '1d'"), Ok(()));
        let said = check_names("max_runing = 3").unwrap_err();
        assert_eq!(said, "unknown setting `max_runing`, did you mean `max-running`?");
    }

    #[test]
    fn a_list_of_one_needs_no_brackets() {
        let stored =
            file("root = 'data'\nlimit = 'tokenize=2'\ncors-origin = ['https://a', 'https://b']");
        let config = Config::settle(Settings::default(), stored).unwrap();
        assert_eq!(config.roots, [Path::new("data")]);
        assert_eq!(config.limits, [("tokenize".to_owned(), 2)]);
        assert_eq!(config.cors_origins.len(), 2);
    }

    #[test]
    fn values_of_the_file_are_refused_with_an_example() {
        for (text, example) in [
            ("retention = 30", "\"30d\""),
            ("shutdown-grace = 5", "\"5s\""),
            ("limit = 2", "limit = [\"tokenize=2\""),
            ("[limit]\ntokenize = 2", "limit = [\"tokenize=2\""),
            ("limit = ['tokenize']", "tokenize=2"),
            ("root = 5", "string"),
        ] {
            let said = toml::from_str::<Settings>(text).unwrap_err().to_string();
            assert!(said.contains(example) && said.contains("line 1"), "{text}: {said}");
        }
    }

    #[test]
    fn strangers_are_not_served_by_accident() {
        let config = Config::settle(Settings::default(), Settings::default()).unwrap();
        assert!(config.check_exposure([127, 0, 0, 1].into()).is_ok());
        let error = config.check_exposure([0, 0, 0, 0].into()).unwrap_err().to_string();
        assert!(error.contains("--api-key-file"), "{error}");
    }
}
