//! Load generator: a fixed number of connections that send one request after another. Runs on the
//! single thread of the bench.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::Connection;
use crate::common::server::cpu_seconds;
use crate::requests::Requests;

/// Time limit of the last response.
const PATIENCE: Duration = Duration::from_secs(30);

/// Results of one run of the load.
#[derive(Debug)]
pub(crate) struct Load {
    /// Time of the first request.
    pub(crate) begin: Instant,
    /// Time until the last response.
    pub(crate) elapsed: Duration,
    /// Latency of each request in nanoseconds.
    pub(crate) latencies: Vec<u32>,
    /// CPU seconds of this process.
    pub(crate) own_cpu: f64,
}

/// Sends requests for `duration`.
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
