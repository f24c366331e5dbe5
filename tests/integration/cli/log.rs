//! `log`: shown, followed, and harmless on a terminal.

use std::process::Command;

use serde_json::json;

use crate::api::log::{said, submit, talking, until_said};
use crate::common;

#[tokio::test]
async fn the_command_line_shows_and_follows_a_log() {
    let server = talking(&[]);
    let id = submit(&server, "\u{1b}[31mred", json!("go")).await;
    until_said(&server, &id, "out \u{1b}[31mred").await;
    let url = server.url("");
    let ask = |args: &[&str]| {
        let output = common::run(server.folder(), args, &[("TASK_SERVER_URL", &*url)]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = ask(&["log", &id]);
    assert_eq!(
        (code, said(&text)),
        (Some(0), vec!["out \u{1b}[31mred", "log INFO on a thread n=7"])
    );
    let short = &id[id.len() - 8..];
    assert_eq!(said(&ask(&["log", short, "--tail", "1"]).1), ["log INFO on a thread n=7"]);
    assert_eq!(ask(&["log", &id, "--attempt", "7"]).0, Some(65));
    let follower =
        common::piped(server.folder(), &["log", "-f", &id], &[("TASK_SERVER_URL", &*url)]);
    server.write("go", "");
    let followed = follower.wait_with_output().unwrap();
    assert_eq!(followed.status.code(), Some(0));
    let followed = String::from_utf8(followed.stdout).unwrap();
    assert!(followed.ends_with("err end of attempt 2\n"), "{followed}");
    // `script` gives the program a terminal.
    let shown = format!("{} log {id} --tail 3 --url {url}", env!("CARGO_BIN_EXE_task-server"));
    match Command::new("script").args(["-qec", &shown, "/dev/null"]).output() {
        Ok(output) => {
            let shown = String::from_utf8(output.stdout).unwrap();
            assert!(shown.contains(r"out \u{1b}[31mred") && !shown.contains('\u{1b}'), "{shown:?}");
        }
        Err(_) => common::skips::skip("script is not installed (apt install bsdutils)"),
    }
}
