//! What the bench is asked to do.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Measures the server, on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench throughput --")]
pub(crate) struct Args {
    /// Measures only what has one of these in its name.
    pub(crate) names: Vec<String>,

    /// Compares with an older program, in alternating pairs; fails if it was faster.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) against: Option<PathBuf>,

    /// Pairs for each measurement, with --against.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pairs: u32,

    /// Seconds for each measurement of a pair, with --against.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,

    /// Asks a long history for every pair and triple of filters; fails if a page or a look at one
    /// task beside it is slow.
    #[arg(long, conflicts_with = "against")]
    pub(crate) filters: bool,

    /// Tasks of that history, with --filters.
    #[arg(long, default_value_t = 3_000_000)]
    pub(crate) rows: u64,

    /// What cargo hands over.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Args {
    /// Whether this was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part))
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}
