//! Results and targets.

use std::fmt;

use crate::common::table::Table;

/// One kind of work.
pub(crate) struct Row {
    pub(crate) what: String,
    /// Amount of work, in millions of `unit`.
    pub(crate) amount: f64,
    pub(crate) unit: &'static str,
    pub(crate) rounds: Vec<Round>,
    /// Target speedup over the reference.
    pub(crate) target: Option<f64>,
    /// Seconds of server CPU time per round.
    pub(crate) cpu_seconds: f64,
    /// Peak memory of the server in bytes.
    pub(crate) peak_memory: u64,
    /// Limit of the peak memory.
    pub(crate) memory_target: Option<u64>,
}

/// Seconds of the same work on both sides.
pub(crate) struct Round {
    pub(crate) ours: f64,
    pub(crate) reference: Option<f64>,
}

/// All rows, as a table.
pub(crate) struct Report(Table<11>);

impl Report {
    pub(crate) fn new() -> Self {
        Self(Table::new([
            "medians of the rounds",
            "seconds",
            "reference",
            "per second",
            "ratio",
            "target",
            "",
            "CPU s",
            "peak MB",
            "at most",
            "",
        ]))
    }

    pub(crate) fn push(&mut self, row: Row) {
        let ours = median(row.rounds.iter().map(|round| round.ours)).unwrap();
        let reference = median(row.rounds.iter().filter_map(|round| round.reference));
        let ratio =
            median(row.rounds.iter().filter_map(|round| Some(round.reference? / round.ours)));
        let is_slow = ratio.zip(row.target).is_some_and(|(ratio, target)| ratio < target);
        let is_large = row.memory_target.is_some_and(|target| row.peak_memory > target);
        let or_dash = |figure: Option<String>| figure.unwrap_or_else(|| "-".to_owned());
        let mark = |missed: bool| if missed { "MISSED" } else { "" }.to_owned();
        let megabytes = |bytes: u64| format!("{:.0}", bytes as f64 / 1e6);
        self.0.push([
            row.what,
            format!("{ours:.3}"),
            or_dash(reference.map(|seconds| format!("{seconds:.3}"))),
            format!("{:.1} {}", row.amount / ours, row.unit),
            or_dash(ratio.map(|ratio| format!("{ratio:.2}x"))),
            or_dash(row.target.map(|target| format!("{target}x"))),
            mark(is_slow),
            format!("{:.3}", row.cpu_seconds),
            megabytes(row.peak_memory),
            or_dash(row.memory_target.map(megabytes)),
            mark(is_large),
        ]);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}
