//! Command line of the bench.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Measures the server on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench throughput --")]
pub(crate) struct Args {
    /// Run only measurements with one of these in their name.
    pub(crate) names: Vec<String>,

    /// Compare with an older program, in alternating pairs; fail if this build is slower.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) against: Option<PathBuf>,

    /// Pairs per measurement, with --against.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pairs: u32,

    /// Seconds per measurement of a pair, with --against.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,

    /// Query a long history with every pair and triple of filters; fail if a page, or a concurrent
    /// read of one task, is slow.
    #[arg(long, conflicts_with = "against")]
    pub(crate) filters: bool,

    /// Number of tasks in that history, with --filters.
    #[arg(long, default_value_t = 3_000_000)]
    pub(crate) rows: u64,

    /// Passed by cargo.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Args {
    /// True if the measurement was selected.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part))
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}
