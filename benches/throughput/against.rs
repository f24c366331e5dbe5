//! This build against an older one, in alternating pairs (A B, B A, …). Each server has a fresh
//! database, so neither drift of the machine nor order favours a side.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::args::Args;
use crate::client::{Connection, get};
use crate::common::server::{BINARY, Server, folder};
use crate::common::table::Table;
use crate::compare::{Counts, Side};
use crate::reads::until_running;
use crate::report::quantile;
use crate::requests::Requests;
use crate::single;
use crate::submits::{NO_LIMIT, dummy, submit};

/// Required ratio of submits, and of everything else.
const FASTER: f64 = 1.05;
const NOT_SLOWER: f64 = 0.95;
/// Number of tasks behind the plain list.
const LISTED: usize = 500;
/// Half the width of the 95 % confidence interval around a median of n values, in interquartile
/// ranges divided by the root of n. Source: McGill, Tukey, Larsen: Variations of Box Plots, 1978.
const NOTCH: f64 = 1.57;

/// Subject of a pair.
#[derive(Clone, Copy, Debug)]
enum Measurement {
    Submits,
    WholeTasks,
    LiveTask,
    FinishedTask,
    List,
    Idle,
}

const ALL: [Measurement; 6] = [
    Measurement::Submits,
    Measurement::WholeTasks,
    Measurement::LiveTask,
    Measurement::FinishedTask,
    Measurement::List,
    Measurement::Idle,
];

/// Runs the selected measurements. Returns false if a ratio misses its target.
pub(crate) async fn run(program: PathBuf, args: &Args) -> bool {
    let mut table = Table::new([
        "per second",
        "before",
        "spread",
        "now",
        "spread",
        "ratio",
        "+/-",
        "wanted",
        "",
    ]);
    let mut missed = Vec::new();
    for measurement in ALL {
        let name = measurement.name();
        if !args.wants(name) {
            continue;
        }
        let rates = pairs(measurement, &program, args).await;
        let ratio = Ratio::of(&rates);
        let met = measurement.is_met_by(&ratio);
        let (before, now) = rates.into_iter().unzip();
        let ([before, before_spread], [now, now_spread]) = (figures(before), figures(now));
        table.push([
            name.to_owned(),
            before,
            before_spread,
            now,
            now_spread,
            format!("{:.3}", ratio.median),
            format!("{:.3}", ratio.error),
            format!("{:.2}", measurement.wanted()),
            if met { String::new() } else { "MISSED".to_owned() },
        ]);
        if !met {
            missed.push(name);
        }
    }
    println!("\n{table}");
    if !missed.is_empty() {
        println!("missed: {}", missed.join("; "));
    }
    missed.is_empty()
}

/// Rates of the old and the new program, pair by pair.
async fn pairs(measurement: Measurement, program: &Path, args: &Args) -> Vec<(f64, f64)> {
    let duration = args.duration();
    let mut rates = Vec::new();
    for pair in 0..args.pairs {
        eprintln!("measuring {}: pair {} of {}", measurement.name(), pair + 1, args.pairs);
        let new = Path::new(BINARY);
        rates.push(if pair % 2 == 0 {
            let before = measurement.rate(program, duration).await;
            (before, measurement.rate(new, duration).await)
        } else {
            let now = measurement.rate(new, duration).await;
            (measurement.rate(program, duration).await, now)
        });
    }
    rates
}

impl Measurement {
    fn name(self) -> &'static str {
        match self {
            Self::Submits => "accepted submits, 64 connections",
            Self::WholeTasks => "whole tasks, 64 connections",
            Self::LiveTask => "GET of a live task, 64 connections",
            Self::FinishedTask => "GET of a finished task, 64 connections",
            Self::List => "page of a plain list, 8 connections",
            Self::Idle => "idle server, POST to completed",
        }
    }

    fn wanted(self) -> f64 {
        match self {
            Self::Submits => FASTER,
            _ => NOT_SLOWER,
        }
    }

    fn is_met_by(self, ratio: &Ratio) -> bool {
        match self {
            Self::Submits => ratio.median >= FASTER,
            // Allows for the spread.
            _ => ratio.median + ratio.error >= NOT_SLOWER,
        }
    }

    /// Rate of a program per second, on a fresh database.
    async fn rate(self, program: &Path, duration: Duration) -> f64 {
        let mut flags = vec!["--listen", "127.0.0.1:0"];
        flags.extend(NO_LIMIT);
        if matches!(self, Self::Submits) {
            flags.extend(["--max-running", "1"]);
        }
        let server = &Server::start_program(program, folder(), &flags);
        let mut connection = Connection::open(server.address()).await;
        let (connections, counts, requests) = match self {
            Self::Submits => {
                connection.exchange(&dummy(3600.0, 1)).await;
                (64, Counts::Answers, dummy(0.0, 1))
            }
            Self::WholeTasks => (64, Counts::CompletedTasks, dummy(0.0, 1)),
            Self::LiveTask => {
                let id = submit(&mut connection, &dummy(3600.0, 1)).await;
                (64, Counts::Answers, get(&until_running(&mut connection, &id).await))
            }
            Self::FinishedTask => {
                let id = submit(&mut connection, &dummy(0.0, 1)).await;
                single::until_completed(&mut connection, &id).await;
                (64, Counts::Answers, get(&format!("/tasks/{id}")))
            }
            Self::List => {
                single::times(&mut connection, LISTED).await;
                (8, Counts::Answers, get("/tasks"))
            }
            Self::Idle => return idle(&mut connection, duration).await,
        };
        let requests = &Requests::Same(requests);
        let what = self.name().to_owned();
        let side = Side { what, server, connections, requests, counts };
        side.round(duration / 6).await;
        let (_, rate, _) = side.round(duration).await;
        rate
    }
}

/// Tasks per second one after the other, from the median of their times.
async fn idle(connection: &mut Connection, duration: Duration) -> f64 {
    single::times(connection, 20).await;
    // About a millisecond each.
    let tasks = (duration.as_millis() / 5).max(20) as usize;
    let mut times = single::times(connection, tasks).await;
    1e9 / f64::from(quantile(&mut times, 0.5))
}

/// Ratio of new to old: median of the pairs, and its error.
#[derive(Debug)]
struct Ratio {
    median: f64,
    error: f64,
}

impl Ratio {
    fn of(rates: &[(f64, f64)]) -> Self {
        let mut ratios: Vec<_> = rates.iter().map(|(before, now)| now / before).collect();
        let [low, median, high] = quartiles(&mut ratios);
        Self { median, error: NOTCH * (high - low) / (ratios.len() as f64).sqrt() }
    }
}

/// Median, and interquartile range in percent of it.
fn figures(mut rates: Vec<f64>) -> [String; 2] {
    let [low, median, high] = quartiles(&mut rates);
    [format!("{median:.0}"), format!("{:.1} %", 100.0 * (high - low) / median)]
}

/// Quartiles, interpolated because picking a neighbour would favour a side among few values.
fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|part| {
        let place = (values.len() - 1) as f64 * part;
        let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
        below + (above - below) * place.fract()
    })
}
