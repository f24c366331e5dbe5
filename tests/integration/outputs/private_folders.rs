//! The folder of an attempt, and the folder of a task.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{PATIENCE, Server, tokenize};
use crate::outputs::server::{GO, crash, resumes, start};

fn path(value: &Value) -> &Path {
    Path::new(value.as_str().unwrap())
}

/// Waits until nothing is left in the state folder but its own folders.
fn until_empty(server: &Server) {
    let begin = std::time::Instant::now();
    let left = || -> usize {
        let folders = fs::read_dir(server.folder().join("tasks.db-state")).unwrap();
        folders.map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
    };
    while left() > 0 {
        assert!(begin.elapsed() < PATIENCE, "private folders are left");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn each_attempt_has_a_new_folder_and_all_share_one() {
    let server = start();
    let id = server.submit(resumes(2, false)).await;
    let task = server.wait_for(&id, "completed").await;
    let result = &task["result"];
    assert_eq!((&result["is_new"], &result["done"]), (&json!(true), &json!("xx")), "{task:#}");
    let state = server.folder().canonicalize().unwrap().join("tasks.db-state");
    assert_eq!(path(&result["work"]), state.join(format!("attempts/{id}.2")));
    assert_eq!(path(&result["state"]), state.join(format!("state/{id}")));
    assert!(!path(&result["work"]).exists() && !path(&result["state"]).exists());
    until_empty(&server);
}

#[tokio::test]
async fn a_checkpoint_survives_the_server() {
    let mut server = start();
    let id = server.submit(resumes(1, true)).await;
    let task = server.until(&format!("/tasks/{id}"), |task| task["progress"] == 50.0).await;
    let work = path(&task["message"]).to_owned();
    assert!(work.join("scratch").exists());
    crash(&mut server);
    assert!(!work.exists());
    server.write(GO, "");
    let task = server.wait_for(&id, "completed").await;
    assert_eq!((&task["result"]["done"], &task["attempt"]), (&json!("xx"), &json!(1)), "{task:#}");
    until_empty(&server);
}

#[tokio::test]
async fn a_task_that_is_cancelled_leaves_no_folder() {
    let mut server = start();
    let [running, forgotten] = [(); 2].map(|()| resumes(1, true));
    let (running, forgotten) = (server.submit(running).await, server.submit(forgotten).await);
    let pending = server.submit(resumes(1000, false)).await;
    for id in [&running, &forgotten] {
        server.until(&format!("/tasks/{id}"), |task| task["progress"] == 50.0).await;
    }
    let retries = |task: &Value| task["error"].is_string() && task["status"] == "pending";
    server.until(&format!("/tasks/{pending}"), retries).await;
    for id in [&running, &pending] {
        assert_eq!(server.delete(&format!("/tasks/{id}")).await.status, 200);
        server.wait_for(id, "cancelled").await;
        assert!(!server.folder().join(format!("tasks.db-state/state/{id}")).exists());
    }
    assert!(server.folder().join(format!("tasks.db-state/state/{forgotten}")).exists());
    // Unknown to the database.
    let stray = server.folder().join("tasks.db-state/state/01890a5d-ac96-774b-bcce-b302099a8057");
    fs::create_dir(stray).unwrap();
    crash(&mut server);
    server.write(GO, "");
    server.wait_for(&forgotten, "completed").await;
    until_empty(&server);
}

#[tokio::test]
async fn private_folders_are_no_paths_of_a_submission() {
    let server = Server::start(&[]);
    server.write("in.txt", "some text");
    symlink("tasks.db-state", server.folder().join("link")).unwrap();
    for exists in [false, true] {
        // A link that leads nowhere is met when the task runs.
        let paths = ["tasks.db-state", "tasks.db-state/state/x/out.json", "link/out.json"];
        for &path in &paths[..if exists { 3 } else { 2 }] {
            for (input, output) in [(path, "out.json"), ("in.txt", path)] {
                let fault = server.post("/tasks", &tokenize(input, output)).await.only_fault();
                assert!(fault.contains("server's own files"), "{path}, {exists}: {fault}");
            }
        }
        fs::create_dir_all(server.folder().join("tasks.db-state/state")).unwrap();
    }
}
