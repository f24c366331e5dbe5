//! `--config` of the verbs that share files with the server.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, Failure};
use crate::config::{Config, ConfigError, Settings};

#[derive(Args, Debug)]
pub(super) struct SettingsFile {
    /// Settings file; flags and environment take precedence [default: task-server.toml if it exists]
    #[arg(long, env = "TASK_SERVER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SettingsFile {
    /// Loads the settings of a server with these flags.
    pub(super) fn with(&self, flags: Settings) -> Result<Config, ConfigError> {
        Config::load(flags, self.config.as_deref())
    }

    /// Loads the settings of a server without flags.
    pub(super) fn load(&self) -> Result<Config, Failure> {
        let config = self.with(Settings::default());
        config.map_err(|error| Failure::new(Exit::Usage, error.to_string()))
    }
}
