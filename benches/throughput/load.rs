//! Drives a server as fast as it answers, with a fixed number of connections that send one request
//! after another. Runs on the one thread of the bench.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::Connection;
use crate::common::server::cpu_seconds;
use crate::requests::Requests;

/// How long the last answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one stretch of load has shown.
#[derive(Debug)]
pub(crate) struct Load {
    /// When the first request was sent.
    pub(crate) begin: Instant,
    /// Until the last answer.
    pub(crate) elapsed: Duration,
    /// One for each request, in nanoseconds.
    pub(crate) latencies: Vec<u32>,
    /// Seconds of CPU time that this process has spent.
    pub(crate) own_cpu: f64,
}

/// Sends requests for this long.
pub(crate) async fn drive(
    address: &str,
    connections: usize,
    requests: &Requests,
    duration: Duration,
) -> Load {
    let mut ready = Vec::with_capacity(connections);
    for index in 0..connections {
        ready.push((Connection::open(address).await, requests.for_connection(index)));
    }
    let own_cpu = cpu_seconds(std::process::id());
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    for (connection, requests) in ready {
        clients.spawn(client(connection, requests, begin + duration));
    }
    let answered = timeout(duration + PATIENCE, clients.join_all()).await;
    let latencies = answered.expect("the server answers no more").concat();
    let elapsed = begin.elapsed();
    let own_cpu = cpu_seconds(std::process::id()) - own_cpu;
    Load { begin, elapsed, latencies, own_cpu }
}

async fn client(mut connection: Connection, mut requests: Requests, end: Instant) -> Vec<u32> {
    let mut latencies = Vec::with_capacity(1 << 14);
    let mut sent = Instant::now();
    while sent < end {
        connection.exchange(requests.next()).await;
        let answered = Instant::now();
        latencies.push((answered - sent).as_nanos().try_into().unwrap_or(u32::MAX));
        sent = answered;
    }
    latencies
}
