//! Results as one table.

use std::fmt;
use std::time::Duration;

use crate::common::table::Table;

/// A line of the table: a name and the figures it has.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) what: String,
    /// Requests or tasks per second.
    pub(crate) rate: Option<f64>,
    /// Median and 99th percentile of the latency.
    pub(crate) latency: Option<(Duration, Duration)>,
    pub(crate) measured: Option<Measured>,
    pub(crate) target: Option<Target>,
    /// Seconds of server CPU time per request or task.
    pub(crate) server_cpu: Option<f64>,
    /// Seconds of the load generator's CPU time per request.
    pub(crate) own_cpu: Option<f64>,
    /// Peak memory of the server in bytes.
    pub(crate) peak_memory: Option<u64>,
}

/// Value to compare with the target.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Measured {
    /// Multiple of another server's rate.
    Ratio(f64),
    Seconds(f64),
    Bytes(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtLeast(Measured),
    AtMost(Measured),
}

/// All results, in order.
#[derive(Debug)]
pub(crate) struct Report(Table<10>);

impl Report {
    pub(crate) fn new() -> Self {
        Self(Table::new([
            "",
            "per second",
            "p50",
            "p99",
            "measured",
            "target",
            "",
            "CPU/request",
            "generator's",
            "peak memory",
        ]))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, row: Row) {
        let missed = match (row.measured, row.target) {
            (Some(measured), Some(target)) => !target.is_met_by(measured),
            _ => false,
        };
        self.0.push([
            row.what,
            row.rate.map(|rate| format!("{rate:.0}")).unwrap_or_default(),
            row.latency.map(|(p50, _)| milliseconds(p50)).unwrap_or_default(),
            row.latency.map(|(_, p99)| milliseconds(p99)).unwrap_or_default(),
            row.measured.map(|measured| measured.to_string()).unwrap_or_default(),
            row.target.map(|target| target.to_string()).unwrap_or_default(),
            if missed { "MISSED".to_owned() } else { String::new() },
            row.server_cpu.map(microseconds).unwrap_or_default(),
            row.own_cpu.map(microseconds).unwrap_or_default(),
            row.peak_memory.map(megabytes).unwrap_or_default(),
        ]);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Measured {
    fn number(self) -> f64 {
        match self {
            Self::Ratio(number) | Self::Seconds(number) => number,
            Self::Bytes(bytes) => bytes as f64,
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ratio(ratio) => write!(f, "{ratio:.2}"),
            Self::Seconds(seconds) if seconds < 0.1 => write!(f, "{:.2} ms", 1e3 * seconds),
            Self::Seconds(seconds) => write!(f, "{seconds:.2} s"),
            Self::Bytes(bytes) => f.write_str(&megabytes(bytes)),
        }
    }
}

impl Target {
    fn is_met_by(self, measured: Measured) -> bool {
        match self {
            Self::AtLeast(target) => measured.number() >= target.number(),
            Self::AtMost(target) => measured.number() <= target.number(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(target) => write!(f, "≥ {target}"),
            Self::AtMost(target) => write!(f, "≤ {target}"),
        }
    }
}

/// Quantile of the values.
pub(crate) fn quantile<T: Copy + PartialOrd>(values: &mut [T], part: f64) -> T {
    let index = ((values.len() - 1) as f64 * part).round() as usize;
    let order = |a: &T, b: &T| a.partial_cmp(b).expect("a number");
    *values.select_nth_unstable_by(index, order).1
}

/// Median and 99th percentile.
pub(crate) fn latency(mut nanoseconds: Vec<u32>) -> (Duration, Duration) {
    let quantile = |part| Duration::from_nanos(quantile(&mut nanoseconds, part).into());
    let [p50, p99] = [0.5, 0.99].map(quantile);
    (p50, p99)
}

pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", 1e3 * time.as_secs_f64())
}

fn microseconds(seconds: f64) -> String {
    format!("{:.1} µs", 1e6 * seconds)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
