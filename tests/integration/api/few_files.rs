//! Servers with a low limit of open files.

use std::process::Command;

use rustix::process::{Resource, getrlimit};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::api::hostile_clients::client;
use crate::common::{PATIENCE, Server, tokenize};

/// Creates a script that starts the server with this limit.
fn starter(folder: &TempDir, files: u32) -> std::path::PathBuf {
    let starter = folder.path().join("start");
    // Not written by this process: a child forked by another test at that moment would keep the
    // file open.
    let write = format!(
        "printf '#!/bin/sh\\nulimit -n {files}\\nexec \"%s\" \"$@\"\\n' \"$1\" > \"$0\" && chmod +x \"$0\""
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &write]).arg(&starter).arg(env!("CARGO_BIN_EXE_task-server"));
    assert!(shell.status().unwrap().success());
    starter
}

#[test]
fn a_server_that_may_open_too_few_files_says_so_and_ends() {
    for (files, args, needed) in [
        (64, &["--listen", "127.0.0.1:0", "--cpu-slots", "2"][..], 443),
        (64, &["--cpu-slots", "2", "--listen", "127.0.0.1:0", "--max-running", "1"], 191),
        (190, &["--cpu-slots", "2", "--listen", "127.0.0.1:0", "--max-running", "1"], 191),
    ] {
        let folder = TempDir::new().unwrap();
        let starter = starter(&folder, files);
        let run = Command::new(starter).args(args).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("open-file limit is {files},")), "{said}");
        assert!(said.contains(&format!("at least {needed}:")), "{said}");
        assert!(said.contains("ulimit -n"), "{said}");
    }
}

#[tokio::test]
async fn clients_cannot_use_up_the_files_of_tasks() {
    if getrlimit(Resource::Nofile).current.is_some_and(|files| files < 300) {
        return crate::common::skips::skip("this process may not open 100 connections");
    }
    let folder = TempDir::new().unwrap();
    let starter = starter(&folder, 256);
    let server = Server::start_binary(&starter, folder, &["--max-running", "8"]);
    server.write("in.txt", "some text");
    // The client of this test has its connection before the others take the rest.
    assert_eq!(server.get("/health/live").await.status, 200);
    let half = "POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{";
    let mut others = Vec::new();
    for _ in 0..100 {
        others.push(client(&server, half).await);
    }
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(server.submit(tokenize("in.txt", &format!("out-{number}.json"))).await);
    }
    for id in ids {
        // Without `wait`, because the server closes the connection after a long-poll while others
        // queue for it.
        let ended = |task: &serde_json::Value| task["completed_at"].is_string();
        let task = server.until(&format!("/tasks/{id}"), ended).await;
        assert_eq!(task["status"], "completed", "{task:#}");
        let output = server.get(&format!("/tasks/{id}/output")).await;
        assert_eq!(output.status, 200, "{output}");
    }
    let live = "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut probe = client(&server, live).await;
    drop(others);
    let mut response = String::new();
    tokio::time::timeout(PATIENCE, probe.read_to_string(&mut response)).await.unwrap().unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(!server.log().contains("Too many open files"), "{}", server.log());
}
