//! Throughput of reads of single tasks.

use crate::bare;
use crate::client::{Connection, get};
use crate::common::server::Server;
use crate::compare::{Counts, Side, compare};
use crate::history::{self, Million};
use crate::report::Row;
use crate::requests::{Random, Requests};
use crate::submits::{dummy, submit};

const CONNECTIONS: usize = 64;

/// Repeated reads of one running task.
pub(crate) async fn live(what: &str, at_least: f64) -> Vec<Row> {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address()).await;
    let id = submit(&mut connection, &dummy(3600.0, 1)).await;
    let path = until_running(&mut connection, &id).await;
    against_bare(what, &server, &id, Requests::Same(get(&path)), at_least).await
}

/// Returns the path of the task once it runs.
pub(crate) async fn until_running(connection: &mut Connection, id: &str) -> String {
    let path = format!("/tasks/{id}");
    while !connection.get(&path).await.contains("\"status\":\"running\"") {}
    path
}

/// Reads of random finished tasks.
pub(crate) async fn finished(what: &str, million: &Million, at_least: f64) -> Vec<Row> {
    let history = million.get().await;
    let server = Server::start_in(history.copy(), &[]);
    let id = history::id(0);
    let bytes = get(&format!("/tasks/{id}"));
    let begin = "GET /tasks/".len();
    let requests = Requests::RandomIds {
        bytes,
        place: begin..begin + id.len(),
        id: history::id,
        count: history.finished(),
        random: Random::new(0),
    };
    against_bare(what, &server, &id, requests, at_least).await
}

/// Compares with a bare server that responds with the bytes of this task.
async fn against_bare(
    what: &str,
    server: &Server,
    id: &str,
    requests: Requests,
    at_least: f64,
) -> Vec<Row> {
    let mut connection = Connection::open(server.address()).await;
    let bare = bare::start(&connection.get(&format!("/tasks/{id}")).await);
    let (connections, requests, counts) = (CONNECTIONS, &requests, Counts::Answers);
    let base = Side {
        what: format!("bare GET, {connections} connections"),
        server: &bare,
        connections,
        requests,
        counts,
    };
    let side = Side { what: what.to_owned(), server, connections, requests, counts };
    compare(base, side, at_least).await
}
