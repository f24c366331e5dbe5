//! Latency of a single task on an idle server.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::client::{Connection, get};
use crate::common::server::Server;
use crate::disk;
use crate::report::{Measured, Row, Target, latency};
use crate::submits::{dummy, submit};

const TASKS: usize = 500;
const REPORTS: u32 = 1_000_000;
/// Time limit of a task beyond its three syncs: pending, running and completed are stored.
const HANDLING: Duration = Duration::from_micros(500);

/// Time from the submission of an empty task to the response that shows it completed.
pub(crate) async fn to_completed(what: &str) -> Vec<Row> {
    let at_most = 3 * disk::sync_time() + HANDLING;
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address()).await;
    let cpu = server.cpu_seconds();
    let latency = latency(times(&mut connection, TASKS).await);
    vec![Row {
        what: what.to_owned(),
        latency: Some(latency),
        measured: Some(Measured::Seconds(latency.0.as_secs_f64())),
        target: Some(Target::AtMost(Measured::Seconds(at_most.as_secs_f64()))),
        server_cpu: Some((server.cpu_seconds() - cpu) / TASKS as f64),
        peak_memory: Some(server.peak_memory()),
        ..Row::default()
    }]
}

/// Runs tasks one after the other; returns the nanoseconds of each.
pub(crate) async fn times(connection: &mut Connection, tasks: usize) -> Vec<u32> {
    let request = dummy(0.0, 1);
    let mut times = Vec::with_capacity(tasks);
    for _ in 0..tasks {
        let begin = Instant::now();
        let id = submit(connection, &request).await;
        until_completed(connection, &id).await;
        times.push(begin.elapsed().as_nanos().try_into().unwrap_or(u32::MAX));
    }
    times
}

/// A task that reports progress as fast as it can.
pub(crate) async fn reports(what: &str, at_most: f64) -> Vec<Row> {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address()).await;
    // The first task also causes one-time writes.
    run(&server, &mut connection, 1).await;
    let (_, fewest) = run(&server, &mut connection, 1).await;
    let cpu = server.cpu_seconds();
    let (elapsed, writes) = run(&server, &mut connection, REPORTS).await;
    vec![Row {
        what: format!("{what}: {writes} writes, {fewest} for a single report"),
        rate: Some(f64::from(REPORTS) / elapsed),
        measured: Some(Measured::Seconds(elapsed)),
        target: Some(Target::AtMost(Measured::Seconds(at_most))),
        server_cpu: Some((server.cpu_seconds() - cpu) / f64::from(REPORTS)),
        peak_memory: Some(server.peak_memory()),
        ..Row::default()
    }]
}

/// Runs a task to its end; returns its seconds and the server's number of writes.
async fn run(server: &Server, connection: &mut Connection, reports: u32) -> (f64, u64) {
    let writes = server.writes();
    let id = submit(connection, &dummy(0.0, reports)).await;
    let task = until_completed(connection, &id).await;
    let time = |name: &str| task[name].as_str().unwrap().parse::<Timestamp>().unwrap();
    let elapsed = time("completed_at").duration_since(time("started_at"));
    (elapsed.as_secs_f64(), server.writes() - writes)
}

pub(crate) async fn until_completed(connection: &mut Connection, id: &str) -> Value {
    let body = connection.exchange(&get(&format!("/tasks/{id}?wait=5"))).await;
    let task: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(task["status"], "completed", "{task}");
    task
}
