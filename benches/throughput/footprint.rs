//! Start time, memory and binary size of the server.

use std::fs;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::client::Connection;
use crate::common::server::{BINARY, Server};
use crate::history::Million;
use crate::report::{Measured, Row, Target, quantile};

const BOOTS: usize = 3;
const PENDING: u64 = 100_000;
/// Time for an idle server to settle.
const REST: Duration = Duration::from_secs(1);

/// Memory of an idle server with an empty database.
pub(crate) async fn idle(what: &str, at_most: u64) -> Vec<Row> {
    let server = Server::start(&[]);
    Connection::open(server.address()).await.get("/health/ready").await;
    sleep(REST).await;
    vec![memory(what, &server, at_most)]
}

/// Start with a long history and a long queue: time to the first response, and memory after it. The
/// file was just written, so the kernel has it in its cache.
pub(crate) async fn boot(
    what: &str,
    million: &Million,
    seconds_at_most: f64,
    bytes_at_most: u64,
) -> Vec<Row> {
    let mut folder = million.get().await.copy_with_pending(PENDING).await;
    let flags = ["--max-running", "1", "--shutdown-grace", "0s"];
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..BOOTS {
        let begin = Instant::now();
        let server = Server::start_in(folder, &flags);
        Connection::open(server.address()).await.get("/health/ready").await;
        times.push(begin.elapsed().as_secs_f64());
        sleep(REST).await;
        last = Some(memory(&format!("{what}: memory"), &server, bytes_at_most));
        folder = server.stop();
    }
    let time = Row {
        what: format!("{what}: first answer"),
        measured: Some(Measured::Seconds(quantile(&mut times, 0.5))),
        target: Some(Target::AtMost(Measured::Seconds(seconds_at_most))),
        ..Row::default()
    };
    [time].into_iter().chain(last).collect()
}

/// Size of the binary built for this bench.
pub(crate) fn binary(what: &str, at_most: u64) -> Vec<Row> {
    // Environment variables may make the bench profile differ from the release profile.
    let changed = std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PROFILE_BENCH_"));
    let changed: String = changed.map(|(name, value)| format!(", {name}={value}")).collect();
    vec![Row {
        what: format!("{what}{changed}"),
        measured: Some(Measured::Bytes(fs::metadata(BINARY).unwrap().len())),
        target: Some(Target::AtMost(Measured::Bytes(at_most))),
        ..Row::default()
    }]
}

fn memory(what: &str, server: &Server, at_most: u64) -> Row {
    Row {
        what: what.to_owned(),
        measured: Some(Measured::Bytes(server.memory())),
        target: Some(Target::AtMost(Measured::Bytes(at_most))),
        peak_memory: Some(server.peak_memory()),
        ..Row::default()
    }
}
