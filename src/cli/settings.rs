//! The settings file that a server reads, for the verbs that work on the same files.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, Failure};
use crate::config::{Config, ConfigError, Settings};

#[derive(Args, Debug)]
pub(super) struct SettingsFile {
    /// Settings file; flags and environment win over it [default: task-server.toml if it is there]
    #[arg(long, env = "TASK_SERVER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SettingsFile {
    /// The settings of a server that is started with these flags.
    pub(super) fn with(&self, flags: Settings) -> Result<Config, ConfigError> {
        Config::load(flags, self.config.as_deref())
    }

    /// The settings of a server that is started without flags.
    pub(super) fn load(&self) -> Result<Config, Failure> {
        let config = self.with(Settings::default());
        config.map_err(|error| Failure::new(Exit::Usage, error.to_string()))
    }
}
