//! Standard output and standard error without a reader.

use std::io::{BufRead, BufReader};

use tempfile::TempDir;

use crate::cli::program::ask_at;
use crate::common::{self, Server, dummy, endless};

const UNKNOWN: &str = "01a20732-f5d8-72b0-90ab-6e8c0dbec33e";

#[tokio::test]
async fn what_is_asked_for_is_done_and_the_exit_code_is_right() {
    let server = Server::start(&["--max-running", "1"]);
    let url = server.url("");
    let run = |args: &[&str]| {
        common::run_unheard(server.folder(), args, &[("TASK_SERVER_URL", &url)]).unwrap()
    };
    let failing = ["tokenize", "-p", "sleep_duration=0", "--input", "absent", "--output", "out"];
    assert_eq!(run(&[&["submit", "--wait"], &failing[..]].concat()), 1);
    assert_eq!(run(&[&["run"], &failing[..]].concat()), 1);
    assert_eq!(run(&["run", "dummy_short", "-p", "duration=0"]), 0);
    assert_eq!(run(&["list", "--limit", "1"]), 0);
    assert_eq!(run(&["get", UNKNOWN]), 65);
    assert_eq!(run(&["frobnicate"]), 64);
    // The key is lost, and its user has to know.
    assert_eq!(run(&["key", "new", "--name", "alice"]), 74);

    let (first, second) = (server.submit(endless()).await, server.submit(endless()).await);
    assert_eq!(run(&["cancel", &first, UNKNOWN, &second]), 65);
    for id in [&first, &second] {
        server.wait_for(id, "cancelled").await;
    }
    assert_eq!(run(&["watch", &first]), 2);
    let id = server.submit(dummy(0.0)).await;
    assert_eq!(run(&["watch", &id]), 0);
}

#[test]
fn a_server_whose_log_cannot_be_written_serves_on() {
    let folder = TempDir::new().unwrap();
    let args = ["--listen", "127.0.0.1:0"];
    let mut server = common::piped(folder.path(), &args, &[("RUST_LOG", "debug")]);
    let mut log = BufReader::new(server.stderr.take().unwrap());
    let url = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the server does not listen");
        if let Some((_, url)) = line.trim_end().split_once("listening on ") {
            break url.to_owned();
        }
    };
    drop(log);
    let submit = ["submit", "--wait", "dummy_short", "-p", "duration=0"];
    let asked: Vec<_> = (0..3).map(|_| ask_at(&url, folder.path(), &submit)).collect();
    server.kill().unwrap();
    server.wait().unwrap();
    for ended in asked {
        ended.with(0);
    }
}
