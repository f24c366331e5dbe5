//! Nobody is at the other end of standard output or standard error.

use std::io::{BufRead, BufReader};

use tempfile::TempDir;

use crate::common;
use crate::program::ask_at;

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
