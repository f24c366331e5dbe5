//! Two servers under the same load, in turns, so that other activity on the machine affects both.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::client::Connection;
use crate::common::server::Server;
use crate::load::{Load, drive};
use crate::report::{Measured, Row, Target, latency, quantile};
use crate::requests::Requests;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);
/// Interval between polls for the end of the tasks; polls cost the server time.
const POLL: Duration = Duration::from_millis(5);
/// Time limit of the tasks of a round after its last submission.
const PATIENCE: Duration = Duration::from_secs(100);

/// One side of a comparison.
#[derive(Debug)]
pub(crate) struct Side<'a> {
    pub(crate) what: String,
    pub(crate) server: &'a Server,
    pub(crate) connections: usize,
    pub(crate) requests: &'a Requests,
    pub(crate) counts: Counts,
}

/// Unit of the rate, which also determines the end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Requests, until the last response.
    Answers,
    /// Submitted tasks, until all have completed.
    CompletedTasks,
}

/// Results of all rounds of one side.
#[derive(Debug, Default)]
struct Rounds {
    rates: Vec<f64>,
    /// Responses per second under load.
    answer_rates: Vec<f64>,
    latencies: Vec<u32>,
    server_cpu: f64,
    own_cpu: f64,
}

/// Measures both sides. Compares the ratio of the second side's rate to the first's with the
/// target.
pub(crate) async fn compare(base: Side<'_>, side: Side<'_>, at_least: f64) -> Vec<Row> {
    let sides = [base, side];
    for side in &sides {
        side.round(WARM_UP).await;
    }
    let mut rounds = [Rounds::default(), Rounds::default()];
    for _ in 0..ROUNDS {
        for (side, rounds) in sides.iter().zip(&mut rounds) {
            rounds.add(side).await;
        }
    }
    let ratios = rounds[1].rates.iter().zip(&rounds[0].rates).map(|(side, base)| side / base);
    let ratio = quantile(&mut ratios.collect::<Vec<_>>(), 0.5);
    let mut rows = Vec::new();
    for (side, rounds) in sides.iter().zip(rounds) {
        rows.extend(rounds.rows(side));
    }
    // The last row has the counted rate, so it gets the ratio.
    if let Some(row) = rows.last_mut() {
        row.measured = Some(Measured::Ratio(ratio));
        row.target = Some(Target::AtLeast(Measured::Ratio(at_least)));
    }
    rows
}

impl Side<'_> {
    /// Runs a round; returns its load, the rate, and the CPU time of the server.
    pub(crate) async fn round(&self, duration: Duration) -> (Load, f64, f64) {
        let address = self.server.address();
        let cpu = self.server.cpu_seconds();
        let load = drive(address, self.connections, self.requests, duration).await;
        let elapsed = match self.counts {
            Counts::Answers => load.elapsed,
            Counts::CompletedTasks => {
                let idle = timeout(PATIENCE, until_idle(address)).await;
                idle.expect("the tasks of a round do not come to an end");
                load.begin.elapsed()
            }
        };
        let rate = load.latencies.len() as f64 / elapsed.as_secs_f64();
        (load, rate, self.server.cpu_seconds() - cpu)
    }

    /// JSON list with the latest task that failed or was cancelled, if any.
    async fn not_completed(&self) -> Option<String> {
        match self.counts {
            Counts::Answers => None,
            Counts::CompletedTasks => {
                let mut connection = Connection::open(self.server.address()).await;
                Some(connection.get("/tasks?status=failed,cancelled&limit=1").await)
            }
        }
    }
}

impl Rounds {
    async fn add(&mut self, side: &Side<'_>) {
        let before = side.not_completed().await;
        let (load, rate, server_cpu) = side.round(ROUND).await;
        assert_eq!(side.not_completed().await, before, "a task has not completed");
        self.rates.push(rate);
        self.answer_rates.push(load.latencies.len() as f64 / load.elapsed.as_secs_f64());
        self.latencies.extend(load.latencies);
        self.server_cpu += server_cpu;
        self.own_cpu += load.own_cpu;
    }

    fn rows(mut self, side: &Side<'_>) -> Vec<Row> {
        let requests = self.latencies.len() as f64;
        let (what, rate) = (side.what.clone(), Some(quantile(&mut self.rates, 0.5)));
        let answers = Row {
            latency: Some(latency(self.latencies)),
            own_cpu: Some(self.own_cpu / requests),
            ..Row::default()
        };
        let server_cpu = Some(self.server_cpu / requests);
        let peak_memory = Some(side.server.peak_memory());
        match side.counts {
            Counts::Answers => vec![Row { what, rate, server_cpu, peak_memory, ..answers }],
            Counts::CompletedTasks => {
                let rate_of_answers = Some(quantile(&mut self.answer_rates, 0.5));
                let accepted = format!("{what}: accepted meanwhile");
                vec![
                    Row { what: accepted, rate: rate_of_answers, ..answers },
                    Row { what, rate, server_cpu, peak_memory, ..Row::default() },
                ]
            }
        }
    }
}

/// Waits until nothing is pending or running.
async fn until_idle(address: &str) {
    let mut connection = Connection::open(address).await;
    loop {
        let body = connection.get("/health/ready").await;
        let ready: Value = serde_json::from_str(&body).unwrap();
        // A task between pending and running may be in neither count, so the list decides.
        if ready["pending"] == 0
            && ready["running"] == 0
            && connection.get("/tasks?status=pending,running&limit=1").await == "[]"
        {
            break;
        }
        sleep(POLL).await;
    }
}
