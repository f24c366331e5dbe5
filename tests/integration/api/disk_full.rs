//! A full disk: requests are refused with a clear error, and work again once there is space.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Server, dummy, endless, refusal, tokenize};

/// A small temporary disk, unmounted on drop.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// Skips the test and returns `None` where mounts are not allowed.
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path());
        if mount.output().is_ok_and(|it| it.status.success()) {
            return Some(Self(folder));
        }
        crate::common::skips::skip("mounts are not permitted");
        None
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Fills the disk completely.
    fn fill(&self) {
        let mut filler = File::create(self.path("filler")).unwrap();
        let full = loop {
            if let Err(error) = filler.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }

    /// Frees the space again.
    fn clear(&self) {
        std::fs::remove_file(self.path("filler")).unwrap();
    }

    /// Starts a server with its database on this disk and its files elsewhere.
    fn server(&self, args: &[&str]) -> Server {
        Server::start(&[&["--database", &self.path("tasks.db")], args].concat())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
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
    let Some(disk) = SmallDisk::mount() else { return };
    let ballast = disk.path("ballast");
    std::fs::write(&ballast, vec![0; 1024 * 1024]).unwrap();
    let mut server = disk.server(&[]);
    let live = server.submit(endless()).await;
    server.until_running(&live).await;
    let finished = server.submit(large()).await;
    server.wait_for(&finished, "completed").await;
    let mut accepted = Vec::new();
    let refused = loop {
        let answer = server.post("/tasks", &large()).await;
        if answer.status != 200 {
            break answer;
        }
        accepted.push(answer.body["task_id"].as_str().unwrap().to_owned());
        assert!(accepted.len() < 5000, "the disk does not fill up");
    };
    assert!(refused.error(507).contains("make room and try again"), "{refused}");
    disk.fill();
    assert_eq!(server.post("/tasks", &large()).await.status, 507);
    let retry = format!("/tasks/{finished}/retry");
    assert_eq!(server.send(server.request(Method::POST, &retry)).await.status, 507);
    for path in [
        "/tasks?limit=1000",
        "/tasks?status=pending,running",
        "/tasks/current/info",
        "/health/live",
        "/health/ready",
        &format!("/tasks/{live}"),
        &format!("/tasks/{finished}"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer}");
    }
    assert_eq!(server.task(&live).await["status"], "running");
    disk.clear();
    std::fs::remove_file(ballast).unwrap();
    for id in &accepted {
        server.wait_for(id, "completed").await;
    }
    let after = server.submit(large()).await;
    server.wait_for(&after, "completed").await;
    server.delete(&format!("/tasks/{live}")).await;
    server.terminate();
    assert!(server.wait_exit().success());
}

#[tokio::test]
async fn a_task_that_is_cancelled_stops_even_if_that_cannot_be_stored() {
    let Some(disk) = SmallDisk::mount() else { return };
    let server = disk.server(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let pending = server.submit(endless()).await;
    disk.fill();
    let refused = server.delete(&format!("/tasks/{running}")).await;
    assert!(refused.error(507).contains("disk"), "{refused}");
    // Its work has ended, but it is not reported as cancelled before that is stored.
    server.until_logged(&["cannot store the end", &running]);
    let task = server.task(&running).await;
    assert_eq!(task["status"], "running", "{task:#}");
    assert!(task["cancel_requested_at"].is_string(), "{task:#}");
    assert_eq!(server.delete(&format!("/tasks/{pending}")).await.status, 507);
    let all = server.send(server.request(Method::POST, "/tasks/cancel?status=pending")).await;
    assert_eq!(all.status, 507, "{all}");
    assert_eq!(server.task(&pending).await["status"], "pending");
    disk.clear();
    // Needs no second request.
    server.wait_for(&running, "cancelled").await;
    server.until_running(&pending).await;
}

/// Fills the disk while a task runs; returns the id of the task.
async fn running_on_a_full_disk(server: &Server, disk: &SmallDisk) -> String {
    for seconds in [1.0, 5.0, 25.0] {
        let id = server.submit(dummy(seconds)).await;
        disk.fill();
        if server.task(&id).await["completed_at"].is_null() {
            return id;
        }
        // The task was faster: tries a longer one.
        disk.clear();
    }
    panic!("no task lasts until the disk is full");
}

#[tokio::test]
async fn a_task_that_ends_on_a_full_disk_is_completed_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let server = disk.server(&["--max-running", "1"]);
    let id = running_on_a_full_disk(&server, &disk).await;
    server.until_logged(&["cannot store the end", &id]);
    assert_eq!(server.task(&id).await["status"], "running");
    disk.clear();
    server.wait_for(&id, "completed").await;
    // Its run slot is free again.
    let next = server.submit(dummy(0.0)).await;
    server.wait_for(&next, "completed").await;
}

#[tokio::test]
async fn a_task_whose_end_cannot_be_stored_is_not_cancelled_and_that_is_said() {
    let Some(disk) = SmallDisk::mount() else { return };
    let server = disk.server(&["--max-running", "1"]);
    let id = running_on_a_full_disk(&server, &disk).await;
    server.until_logged(&["cannot store the end", &id]);
    let one = server.delete(&format!("/tasks/{id}")).await;
    assert!(one.error(507).contains("make room and try again"), "{one}");
    let all = server.send(server.request(Method::POST, "/tasks/cancel?status=running")).await;
    assert_eq!(all.status, 507, "{all}");
    disk.clear();
    server.wait_for(&id, "completed").await;
    assert_eq!(server.delete(&format!("/tasks/{id}")).await.status, 409);
}

#[tokio::test]
async fn nothing_accepted_is_lost_if_the_server_dies_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut server = disk.server(&["--max-running", "1"]);
    let id = running_on_a_full_disk(&server, &disk).await;
    server.until_logged(&["cannot store the end", &id]);
    disk.clear();
    let pending = server.submit(dummy(0.0)).await;
    disk.fill();
    server.kill();
    let database = disk.path("tasks.db");
    let args = ["--listen", "127.0.0.1:0", "--database", &database];
    let (code, said) = refusal(server.folder(), &args, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("disk is full") && said.lines().count() == 1, "{said}");
    disk.clear();
    server.restart(&["--database", &database]);
    for id in [&id, &pending] {
        server.wait_for(id, "completed").await;
    }
}

#[test]
fn a_server_does_not_start_without_room_for_a_database() {
    let Some(disk) = SmallDisk::mount() else { return };
    disk.fill();
    let args = ["--listen", "127.0.0.1:0", "--database", &disk.path("tasks.db")];
    let (code, said) = refusal(disk.0.path(), &args, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("disk is full") && said.lines().count() == 1, "{said}");
    disk.clear();
    drop(disk.server(&[]));
}

fn convert(format: &str, output: &str) -> Value {
    json!({
        "task_type": "image_process",
        "input_file_path": "in.png",
        "output_file_path": output,
        "parameters": { "format": format },
    })
}

#[tokio::test]
async fn a_task_whose_output_finds_no_room_fails_and_leaves_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let server = Server::start(&["--root", ".", "--root", &disk.path("")]);
    server.write("large.txt", "many words of which there are too many ".repeat(100_000));
    server.write("small.txt", "few words");
    image::RgbImage::new(8, 8).save(server.folder().join("in.png")).unwrap();
    let output = disk.path("out.json");
    disk.fill();
    // Output larger than the buffer, and smaller.
    for body in [
        tokenize("large.txt", &output),
        tokenize("small.txt", &output),
        convert("BMP", &output),
        convert("JPEG", &output),
        convert("PNG", &output),
        convert("TIFF", &output),
    ] {
        let id = server.submit(body.clone()).await;
        let task = server.wait_for(&id, "failed").await;
        let error = task["error"].as_str().unwrap();
        assert!(error.contains(&output) && error.contains("No space left"), "{body}: {error}");
        let names: Vec<_> = std::fs::read_dir(disk.path("")).unwrap().flatten().collect();
        assert!(names.len() == 1 && names[0].file_name() == "filler", "{names:?}");
    }
    disk.clear();
    let id = server.submit(tokenize("small.txt", &output)).await;
    server.wait_for(&id, "completed").await;
}

#[tokio::test]
async fn a_dry_run_tells_when_there_is_too_little_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let output = disk.path("out.json");
    let server = Server::start(&["--root", ".", "--root", &disk.path("")]);
    server.write("large.txt", vec![b'a'; 3 * 1024 * 1024]);
    server.write("small.txt", "a");
    let body = |input| tokenize(input, &output);
    let fault = server.post("/tasks?dry_run=true", &body("large.txt")).await.only_fault();
    assert!(fault.contains("body.output_file_path") && fault.contains("bytes free"), "{fault}");
    assert_eq!(server.post("/tasks?dry_run=true", &body("small.txt")).await.status, 200);
}
