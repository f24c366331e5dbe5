//! How long one task takes on a server that has nothing else to do.

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
/// What a task may take on top of three syncs: pending, running and completed are stored.
const HANDLING: Duration = Duration::from_micros(500);

/// From the submission of a task that does nothing to the answer that it has completed.
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

/// Has so many tasks done, one after the other; returns what each took, in nanoseconds.
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

/// A task that reports its progress as fast as it can.
pub(crate) async fn reports(what: &str, at_most: f64) -> Vec<Row> {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address()).await;
    // The first one also writes what is written only once.
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

/// Runs a task to its end; returns the seconds that it ran, and how often the server wrote.
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
