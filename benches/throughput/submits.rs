//! Throughput of submissions and of whole tasks.

use serde_json::{Value, json};

use crate::bare;
use crate::client::{Connection, post_task};
use crate::common::server::Server;
use crate::compare::{Counts, Side, compare};
use crate::history::Million;
use crate::report::Row;
use crate::requests::Requests;

/// A queue limit that refuses no task.
pub(crate) const NO_LIMIT: [&str; 2] = ["--max-pending", "100000000"];

/// Submission of a dummy task that sleeps.
pub(crate) fn dummy(seconds: f64, steps: u32) -> Vec<u8> {
    let parameters = json!({ "duration": seconds, "steps": steps });
    post_task(&json!({ "task_type": "dummy_short", "parameters": parameters }).to_string())
}

/// Submits a task; returns its id.
pub(crate) async fn submit(connection: &mut Connection, request: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(connection.exchange(request).await).unwrap();
    answer["task_id"].as_str().unwrap().to_owned()
}

/// Empty tasks, each stored as pending, running and completed.
pub(crate) async fn whole(
    what: &str,
    connections: usize,
    flags: &[&str],
    at_least: f64,
) -> Vec<Row> {
    let server = Server::start(&[&NO_LIMIT, flags].concat());
    against_bare(what, &server, connections, Counts::CompletedTasks, at_least).await
}

/// The same with a million finished tasks in the database, compared with an empty one.
pub(crate) async fn with_history(what: &str, million: &Million, at_least: f64) -> Vec<Row> {
    let history = million.get().await.copy();
    let servers = [Server::start(&NO_LIMIT), Server::start_in(history, &NO_LIMIT)];
    let requests = &Requests::Same(dummy(0.0, 1));
    let side = |what: &str, server| Side {
        what: what.to_owned(),
        server,
        connections: 64,
        requests,
        counts: Counts::CompletedTasks,
    };
    let empty = "whole tasks after none";
    compare(side(empty, &servers[0]), side(what, &servers[1]), at_least).await
}

/// Submissions behind an endless task: they are only stored.
pub(crate) async fn accepted(what: &str, connections: usize, at_least: f64) -> Vec<Row> {
    let server = Server::start(&[&["--max-running", "1"], &NO_LIMIT[..]].concat());
    Connection::open(server.address()).await.exchange(&dummy(3600.0, 1)).await;
    against_bare(what, &server, connections, Counts::Answers, at_least).await
}

async fn against_bare(
    what: &str,
    server: &Server,
    connections: usize,
    counts: Counts,
    at_least: f64,
) -> Vec<Row> {
    let bare = bare::start("{}");
    let requests = &Requests::Same(dummy(0.0, 1));
    let base = Side {
        what: format!("bare POST, {connections} connections"),
        server: &bare,
        connections,
        requests,
        counts: Counts::Answers,
    };
    let side = Side { what: what.to_owned(), server, connections, requests, counts };
    compare(base, side, at_least).await
}
