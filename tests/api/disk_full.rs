//! A full disk: refused with a sentence, and over when there is room again.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Server, tokenize};

/// A small disk of its own, taken away with the folder.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        mount(&["-t", "tmpfs", "-o", "size=2m", "tmpfs"], folder.path()).then(|| Self(folder))
    }

    fn enlarge(&self) {
        assert!(mount(&["-o", "remount,size=64m"], self.0.path()));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(options: &[&str], folder: &Path) -> bool {
    Command::new("mount").args(options).arg(folder).output().is_ok_and(|it| it.status.success())
}

fn large() -> Value {
    json!({
        "task_type": "dummy_short",
        "parameters": { "duration": 0, "steps": 1 },
        "input_file_path": "x".repeat(4000),
    })
}

#[tokio::test]
async fn a_full_disk_refuses_work_until_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: mounting a small disk is not allowed here");
        return;
    };
    let database = disk.0.path().join("tasks.db");
    let mut server = Server::start(&["--database", database.to_str().unwrap()]);
    let mut accepted = Vec::new();
    let refused = loop {
        let answer = server.post("/tasks", &large()).await;
        if answer.status != 200 {
            break answer;
        }
        accepted.push(answer.body["task_id"].as_str().unwrap().to_owned());
        assert!(accepted.len() < 5000, "the disk is never full");
    };
    assert!(refused.error(507).contains("disk"), "{refused}");
    assert_eq!(server.post("/tasks", &large()).await.status, 507);
    assert_eq!(server.get("/tasks?limit=1").await.status, 200);
    disk.enlarge();
    for id in &accepted {
        server.wait_for(id, "completed").await;
    }
    let after = server.submit(large()).await;
    server.wait_for(&after, "completed").await;
    server.terminate();
    assert!(server.wait_exit().success());
}

#[tokio::test]
async fn a_dry_run_tells_when_there_is_too_little_room() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: mounting a small disk is not allowed here");
        return;
    };
    let output = disk.0.path().join("out.json");
    let server = Server::start(&["--root", ".", "--root", disk.0.path().to_str().unwrap()]);
    server.write("large.txt", vec![b'a'; 3 * 1024 * 1024]);
    server.write("small.txt", "a");
    let body = |input| tokenize(input, output.to_str().unwrap());
    let fault = server.post("/tasks?dry_run=true", &body("large.txt")).await.only_fault();
    assert!(fault.contains("body.output_file_path") && fault.contains("bytes free"), "{fault}");
    assert_eq!(server.post("/tasks?dry_run=true", &body("small.txt")).await.status, 200);
}
