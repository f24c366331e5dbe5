//! How long one task takes on a server that has nothing else to do.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::client::{Connection, get};
use crate::common::server::Server;
use crate::report::{Measured, Row, Target, latency};
use crate::submits::{dummy, submit};

const TASKS: usize = 500;
const REPORTS: u32 = 1_000_000;

/// From the submission of a task that does nothing to the answer that it has completed.
pub(crate) async fn to_completed(what: &str, at_most: Duration) -> Vec<Row> {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address()).await;
    let request = dummy(0.0, 1);
    let mut times = Vec::with_capacity(TASKS);
    let cpu = server.cpu_seconds();
    for _ in 0..TASKS {
        let begin = Instant::now();
        let id = submit(&mut connection, &request).await;
        until_completed(&mut connection, &id).await;
        times.push(begin.elapsed().as_nanos().try_into().unwrap_or(u32::MAX));
    }
    let latency = latency(times);
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

/// A task that reports its progress as fast as it can.
pub(crate) async fn reports(what: &str, at_most: f64) -> Vec<Row> {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address()).await;
    let writes = server.writes();
    let cpu = server.cpu_seconds();
    let id = submit(&mut connection, &dummy(0.0, REPORTS)).await;
    let task = until_completed(&mut connection, &id).await;
    let cpu = server.cpu_seconds() - cpu;
    let writes = server.writes() - writes;
    let time = |name: &str| task[name].as_str().unwrap().parse::<Timestamp>().unwrap();
    let elapsed = time("completed_at").duration_since(time("started_at")).as_secs_f64();
    vec![Row {
        what: format!("{what}: {writes} writes"),
        rate: Some(f64::from(REPORTS) / elapsed),
        measured: Some(Measured::Seconds(elapsed)),
        target: Some(Target::AtMost(Measured::Seconds(at_most))),
        server_cpu: Some(cpu / f64::from(REPORTS)),
        peak_memory: Some(server.peak_memory()),
        ..Row::default()
    }]
}

async fn until_completed(connection: &mut Connection, id: &str) -> Value {
    let body = connection.exchange(&get(&format!("/tasks/{id}?wait=5"))).await;
    let task: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(task["status"], "completed", "{task}");
    task
}
