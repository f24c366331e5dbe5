//! Database files under a running server: aliased, deleted, replaced, or opened by other programs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::common::{Server, dummy, endless, refusal, tokenize};

/// Log of a second server started in this folder.
#[track_caller]
fn refused(folder: &Path) -> String {
    let (code, said) = refusal(folder, &["--listen", "127.0.0.1:0"], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "one clear sentence: {said}");
    said
}

#[tokio::test]
async fn a_second_server_through_a_hard_link_refuses_to_start() {
    let server = Server::start(&[]);
    let other = TempDir::new_in(server.folder()).unwrap();
    fs::hard_link(server.folder().join("tasks.db"), other.path().join("tasks.db")).unwrap();
    let said = refused(other.path());
    assert!(said.contains("in use") && said.contains("hard link"), "{said}");
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
}

/// A bind mount of a file, unmounted on drop.
struct BindMount(TempDir);

impl BindMount {
    /// Skips the test and returns `None` where mounts are not allowed.
    fn of(file: &Path) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let target = folder.path().join("tasks.db");
        fs::write(&target, "").unwrap();
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(file).arg(&target);
        if mount.output().is_ok_and(|it| it.status.success()) {
            return Some(Self(folder));
        }
        crate::common::skips::skip("bind mounts are not permitted");
        None
    }
}

impl Drop for BindMount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path().join("tasks.db")).status();
    }
}

#[tokio::test]
async fn a_second_server_through_a_bind_mount_refuses_to_start() {
    let server = Server::start(&[]);
    let Some(other) = BindMount::of(&server.folder().join("tasks.db")) else { return };
    let said = refused(other.0.path());
    assert!(said.contains("in use") && said.contains("bind mount"), "{said}");
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
}

/// Number of SQLite's locks the server holds on a file. All of them go when any handle of the file
/// is closed.
fn locks(server: &Server, file: &Path) -> usize {
    let (process, file) = (server.process_id().to_string(), file.metadata().unwrap().ino());
    let held = fs::read_to_string("/proc/locks").unwrap();
    let ours = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let inode = words.get(5).and_then(|it| it.rsplit(':').next());
        words.get(1) == Some(&"POSIX")
            && words.get(4) == Some(&&*process)
            && inode.and_then(|it| it.parse().ok()) == Some(file)
    };
    held.lines().filter(ours).count()
}

#[tokio::test]
async fn the_server_keeps_the_locks_of_sqlite_whatever_tasks_read() {
    let server = Server::start(&[]);
    let database = server.folder().join("tasks.db");
    assert_ne!(locks(&server, &database), 0, "no locks at the start");
    fs::hard_link(&database, server.folder().join("innocent.txt")).unwrap();
    for input in ["innocent.txt", "tasks.db"] {
        let answer = server.post("/tasks", &tokenize(input, "out.json")).await;
        if let Some(id) = answer.body["task_id"].as_str() {
            let task = server.wait_for(id, "failed").await;
            assert!(task["error"].as_str().unwrap().contains("own files"), "{task:#}");
        }
        server.post("/tasks?dry_run=true", &tokenize(input, "out.json")).await;
        assert_ne!(locks(&server, &database), 0, "dropped by reading {input}");
    }
}

/// After a database file has vanished, submissions are refused with the reason and advice.
async fn refuses_everything(server: &Server, file: &str) {
    let begin = std::time::Instant::now();
    while server.get("/health/ready").await.status == 200 {
        assert!(begin.elapsed() < crate::common::PATIENCE, "the loss of {file} goes unnoticed");
    }
    let key = server.request(reqwest::Method::POST, "/tasks").header("idempotency-key", "known");
    for answer in [
        server.get("/health/ready").await,
        server.post("/tasks", &dummy(0.0)).await,
        server.send(key.json(&dummy(0.0))).await,
    ] {
        let said = answer.error(503);
        assert!(said.contains(&format!("`{file}`")) && said.contains("restart"), "{answer}");
    }
    assert!(server.log().contains(file), "{}", server.log());
    assert_eq!(server.get("/health/live").await.status, 200);
}

#[tokio::test]
async fn without_its_log_the_server_accepts_nothing_and_what_it_accepted_before_is_kept() {
    for by_a_kill in [true, false] {
        let mut server = Server::start(&["--max-running", "1"]);
        let running = server.submit(endless()).await;
        server.until_running(&running).await;
        let key = server.request(reqwest::Method::POST, "/tasks");
        let known = server.send(key.header("idempotency-key", "known").json(&dummy(0.0))).await;
        let mut accepted = vec![known.body["task_id"].as_str().unwrap().to_owned()];
        fs::remove_file(server.folder().join("tasks.db-wal")).unwrap();
        for _ in 0..5 {
            let answer = server.post("/tasks", &dummy(0.0)).await;
            if answer.status == 200 {
                accepted.push(answer.body["task_id"].as_str().unwrap().to_owned());
            }
        }
        refuses_everything(&server, "tasks.db-wal").await;
        if by_a_kill {
            server.kill();
        } else {
            server.terminate();
            assert!(server.wait_exit().success());
        }
        server.restart(&[]);
        for id in &accepted {
            server.wait_for(id, "completed").await;
        }
    }
}

#[tokio::test]
async fn a_database_that_is_replaced_is_noticed() {
    for file in ["tasks.db", "tasks.db-wal", "tasks.db-shm"] {
        let mut server = Server::start(&[]);
        let path = server.folder().join(file);
        let copy = server.folder().join("copy");
        fs::copy(&path, &copy).unwrap();
        fs::rename(&copy, &path).unwrap();
        refuses_everything(&server, file).await;
        server.terminate();
        assert!(server.wait_exit().success());
    }
}

#[tokio::test]
async fn a_server_ends_in_time_without_its_database() {
    let mut server = Server::start(&["--shutdown-grace", "1s"]);
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    for file in ["tasks.db", "tasks.db-wal", "tasks.db-shm"] {
        fs::remove_file(server.folder().join(file)).unwrap();
    }
    refuses_everything(&server, "tasks.db").await;
    assert_eq!(server.get(&format!("/tasks/{id}")).await.body["status"], json!("running"));
    server.terminate();
    assert!(server.wait_exit().success());
}
