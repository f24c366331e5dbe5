//! Latency of a list page against the number of tasks.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Connection, get};
use crate::common::server::Server;
use crate::history::{History, Million, Mixed, millisecond};
use crate::report::{Measured, Row, Target, quantile};

const FEW: u64 = 1000;
const REQUESTS: usize = 300;
/// Default page size.
const PAGE: usize = 100;

/// First page of each kind of list, from a few tasks and from many.
pub(crate) async fn first_pages(what: &str, million: &Million, at_most: f64) -> Vec<Row> {
    let (many, few) = (million.get().await, History::make(FEW, Mixed::Evenly).await);
    let servers = [&few, many].map(|history| Server::start_in(history.copy(), &[]));
    let mut connections = Vec::new();
    for server in &servers {
        connections.push(Connection::open(server.address()).await);
    }
    let counts = [few.finished(), many.finished()];
    let mut rows = Vec::new();
    for filter in [
        "",
        "status=completed",
        "status=failed",
        "task_type=tokenize",
        "created_after=",
        "tag.plate=3",
        "status=completed&task_type=tokenize",
    ] {
        let requests = counts.map(|count| get(&format!("/tasks?{}", with_time(filter, count))));
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..REQUESTS {
            for side in 0..2 {
                times[side].push(time(&mut connections[side], &requests[side]).await);
            }
        }
        let [few, many] = times.each_mut().map(|times| quantile(times, 0.5));
        let filter = if filter.is_empty() { "no filter" } else { filter.trim_end_matches('=') };
        rows.push(Row {
            what: format!("{what}: {filter}"),
            latency: Some((many, quantile(&mut times[1], 0.99))),
            measured: Some(Measured::Ratio(many.as_secs_f64() / few.as_secs_f64())),
            target: Some(Target::AtMost(Measured::Ratio(at_most))),
            peak_memory: Some(servers[1].peak_memory()),
            ..Row::default()
        });
    }
    rows
}

/// Fills in a time after which more than a page of `tasks` was submitted.
fn with_time(filter: &str, count: u64) -> String {
    if !filter.ends_with('=') {
        return filter.to_owned();
    }
    let time = i64::try_from(millisecond(count - count.min(FEW) / 2)).unwrap();
    format!("{filter}{}", jiff::Timestamp::from_millisecond(time).unwrap())
}

async fn time(connection: &mut Connection, request: &[u8]) -> Duration {
    let begin = Instant::now();
    let body = connection.exchange(request).await;
    let elapsed = begin.elapsed();
    let tasks: Vec<Value> = serde_json::from_slice(body).unwrap();
    assert_eq!(tasks.len(), PAGE, "not a full page");
    elapsed
}
