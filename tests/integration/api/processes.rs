//! Nothing that a task has started outlives it, whatever dies.

use std::fs;
use std::path::Path;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::programs::{server_with, shell};
use crate::common::{PATIENCE, Server};

/// No processes.
const NONE: [i32; 0] = [];

/// Starts children that leave the group and the session, and ignore SIGTERM; then writes the process
/// ids of the script and its parent, and waits.
const FAMILY: &str = r#"
    trap '' TERM
    setsid sh -c 'trap "" TERM; while :; do sleep 100; done' &
    (setsid sh -c 'sleep 1000 & sleep 1000 & wait' &)
    (sleep 1000 &)
    echo "$$ $PPID" > "$TASK_STATE_DIR/family.part"
    mv "$TASK_STATE_DIR/family.part" "$TASK_STATE_DIR/family"
    while :; do sleep 100; done
"#;

fn family(rest: &str) -> Server {
    server_with(&[("family.toml", &shell(FAMILY, &[], &format!("grace = \"100ms\"\n{rest}")))])
}

/// Processes of tasks whose server works in this folder.
fn processes(folder: &Path) -> Vec<i32> {
    let marker = format!("TASK_DIR={}/", folder.canonicalize().unwrap().display());
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &i32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.windows(marker.len()).any(|part| part == marker.as_bytes())
    })
    .collect()
}

/// Waits until no process of a task is left.
fn until_gone(folder: &Path) {
    let begin = Instant::now();
    loop {
        let left = processes(folder);
        if left.is_empty() {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "processes are left: {left:?}");
        std::thread::yield_now();
    }
}

/// Submits a family and waits for it. Returns its task, and the ids of the program and its supervisor.
async fn started(server: &Server, task: Value) -> (String, [i32; 2]) {
    let id = server.submit(task).await;
    let path = server.folder().join(format!("tasks.db-state/state/{id}/family"));
    let begin = Instant::now();
    let text = loop {
        match fs::read_to_string(&path) {
            Ok(text) => break text,
            Err(_) => assert!(begin.elapsed() < PATIENCE, "{}", server.log()),
        }
        tokio::task::yield_now().await;
    };
    let ids: Vec<i32> = text.split_whitespace().map(|id| id.parse().unwrap()).collect();
    (id, [ids[0], ids[1]])
}

fn kill(id: i32) {
    kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
}

/// Stops a process, and waits until it has stopped.
fn stop(id: i32) {
    kill_process(Pid::from_raw(id).unwrap(), Signal::STOP).unwrap();
    let begin = Instant::now();
    let is_stopped = || {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    };
    while !is_stopped() {
        assert!(begin.elapsed() < PATIENCE, "{id} does not stop");
    }
}

#[tokio::test]
async fn a_cancelled_task_leaves_no_process() {
    let server = family("");
    let (id, _) = started(&server, json!({ "task_type": "family" })).await;
    assert!(processes(server.folder()).len() >= 5);
    server.delete(&format!("/tasks/{id}")).await;
    server.wait_for(&id, "cancelled").await;
    assert_eq!(processes(server.folder()), NONE, "cancelled is stored when all is gone");
}

#[tokio::test]
async fn a_timeout_fails_a_task_when_all_its_processes_are_gone() {
    let server = family("");
    let task = json!({ "task_type": "family", "timeout_seconds": 2 });
    let (id, _) = started(&server, task).await;
    let info = server.wait_for(&id, "failed").await;
    assert_eq!(processes(server.folder()), NONE);
    assert!(info["error"].as_str().unwrap().contains("timeout of 2 s"), "{info}");
}

#[tokio::test]
async fn a_killed_server_leaves_no_process() {
    let mut server = family("cpus = 1\n");
    let mut tasks = Vec::new();
    for _ in 0..2 {
        tasks.push(started(&server, json!({ "task_type": "family" })).await.0);
    }
    server.kill();
    until_gone(server.folder());
    server.restart(&[]);
    for id in &tasks {
        let info = server.until_running(id).await;
        assert_eq!(info["attempt"], 1, "{info}");
    }
}

#[tokio::test]
async fn a_killed_supervisor_leaves_no_process() {
    let server = family("");
    let (id, [_, supervisor]) = started(&server, json!({ "task_type": "family" })).await;
    kill(supervisor);
    let info = server.wait_for(&id, "failed").await;
    assert_eq!(processes(server.folder()), NONE);
    assert_eq!(info["error"], "the supervisor of the program was killed");
}

#[tokio::test]
async fn the_next_server_ends_what_nobody_else_could() {
    let mut server = family("");
    let (id, [_, supervisor]) = started(&server, json!({ "task_type": "family" })).await;
    // Stopped, so that it can do nothing in between. (A stopped supervisor would go on: the kernel continues
    // process groups whose parent ends.)
    stop(server.process_id().cast_signed());
    kill(supervisor);
    server.kill();
    fs::write(server.folder().join("tasks.d/family.toml"), shell("true", &[], "")).unwrap();
    server.restart(&[]);
    assert_eq!(processes(server.folder()), NONE, "they are gone before the server listens");
    server.wait_for(&id, "completed").await;
}

#[tokio::test]
async fn a_stopping_server_leaves_no_process_and_runs_the_task_again() {
    let mut server = family("");
    let (id, _) = started(&server, json!({ "task_type": "family" })).await;
    server.kill();
    server.restart(&["--shutdown-grace", "0s"]);
    server.until_running(&id).await;
    server.terminate();
    assert!(server.wait_exit().success());
    assert_eq!(processes(server.folder()), NONE);
    fs::write(server.folder().join("tasks.d/family.toml"), shell("true", &[], "")).unwrap();
    server.restart(&[]);
    let info = server.wait_for(&id, "completed").await;
    assert_eq!(info["attempt"], 1);
}

#[tokio::test]
async fn a_program_that_uses_too_much_memory_is_ended() {
    let eat = "x = bytearray(400 << 20); import time; time.sleep(1000)";
    let manifest = format!("command = [\"python3\", \"-c\", \"{eat}\"]\nmemory = \"100M\"\n");
    let server = server_with(&[("eats.toml", &manifest)]);
    let id = server.submit(json!({ "task_type": "eats" })).await;
    let info = server.wait_for(&id, "failed").await;
    assert_eq!(info["error"], "used more than 100M of memory");
}

#[tokio::test]
async fn programs_run_only_while_their_cpus_are_free() {
    let script = r#"echo x >> "$1"; while [ ! -e "$1.go" ]; do sleep 0.05; done"#;
    let rest = "cpus = 2\n[parameters.text]\ntype = \"string\"\n";
    let folder = super::programs::folder_with(&[(
        "wide.toml",
        &shell(script, &["{parameters.text}"], rest),
    )]);
    let server = Server::start_in(folder, &["--cpu-slots", "3"], &[]);
    let file = server.folder().join("ran").display().to_string();
    let task = json!({ "task_type": "wide", "parameters": { "text": file } });
    let first = server.submit(task.clone()).await;
    server.until_running(&first).await;
    let second = server.submit(task).await;
    let info = server.task(&second).await;
    assert_eq!(info["status"], "pending");
    let reason = info["waiting_because"].as_str().unwrap();
    assert_eq!(reason, "2 of 3 CPU slots taken, this task needs 2");
    server.write("ran.go", "");
    server.wait_for(&first, "completed").await;
    server.wait_for(&second, "completed").await;
}
