//! `backup`, and the server that starts from the copy.

use std::path::Path;

use tempfile::TempDir;

use crate::common::{self, Server, dummy, endless};
use crate::program::Ended;

fn backup(folder: &Path, args: &[&str]) -> Ended {
    common::run(folder, &[&["backup"], args].concat(), &[]).into()
}

/// A server that starts from a copy, in a folder of its own.
fn restore(copy: &Path) -> Server {
    let folder = TempDir::new().unwrap();
    std::fs::copy(copy, folder.path().join("tasks.db")).unwrap();
    Server::start_in(folder, &[], &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_has_every_task_that_was_accepted_before() {
    let server = Server::start(&[]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let mut before = Vec::new();
    for _ in 0..50 {
        before.push(server.submit(dummy(0.0)).await);
    }
    let folder = server.folder().to_owned();
    let copying = tokio::task::spawn_blocking(move || backup(&folder, &["copy.db", "--json"]));
    let mut later = Vec::new();
    while !copying.is_finished() || later.is_empty() {
        later.push(server.submit(dummy(0.0)).await);
    }
    let made = copying.await.unwrap().with(0);
    let tasks = made.json()["tasks"].as_u64().unwrap();
    assert!(tasks > 50 && tasks <= 51 + later.len() as u64, "{made}");
    let copy = server.folder().join("copy.db");
    assert_eq!(made.json()["bytes"], copy.metadata().unwrap().len());

    let restored = restore(&copy);
    for id in &before {
        assert_eq!(restored.task(id).await["task_type"], "dummy_short");
        restored.wait_for(id, "completed").await;
    }
    restored.until_running(&running).await;
    let id = restored.submit(dummy(0.0)).await;
    restored.wait_for(&id, "completed").await;
    // The one that was copied goes on as it did.
    assert_eq!(server.task(&running).await["attempt"], 1);
    for id in &later {
        server.wait_for(id, "completed").await;
    }
}

#[tokio::test]
async fn a_backup_is_possible_without_a_server_and_after_a_crash() {
    let mut server = Server::start(&[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    server.kill();
    let crashed = backup(server.folder(), &["crashed.db"]).with(0);
    assert!(crashed.stdout.starts_with("crashed.db: 1 tasks, "), "{crashed}");
    server.restart(&[]);
    server.terminate();
    server.wait_exit();
    let database = server.folder().join("tasks.db");
    let elsewhere = TempDir::new().unwrap();
    let stopped = ["stopped.db", "--database", database.to_str().unwrap()];
    backup(elsewhere.path(), &stopped).with(0);
    for copy in [server.folder().join("crashed.db"), elsewhere.path().join("stopped.db")] {
        assert_eq!(restore(&copy).task(&id).await["status"], "completed");
    }
    server.restart(&[]);
    assert_eq!(server.task(&id).await["status"], "completed");
}

#[tokio::test]
async fn a_backup_overwrites_nothing_and_leaves_no_halves() {
    let server = Server::start(&[]);
    server.write("precious.db", "precious");
    let refused = backup(server.folder(), &["precious.db"]).with(73);
    assert!(refused.stderr.contains("`precious.db` is there already"), "{refused}");
    assert_eq!(std::fs::read(server.folder().join("precious.db")).unwrap(), b"precious");
    backup(server.folder(), &["tasks.db"]).with(73);
    backup(server.folder(), &["absent/copy.db"]).with(74);

    server.write("other.db", "no database, but long enough to be looked at".repeat(100));
    backup(server.folder(), &["copy.db", "--database", "other.db"]).with(65);
    let missing = backup(server.folder(), &["copy.db", "--database", "absent.db"]).with(66);
    assert!(missing.stderr.contains("--database"), "{missing}");
    let mut left = std::fs::read_dir(server.folder()).unwrap();
    assert!(!left.any(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.contains("copy") || name.ends_with(".part") || name.starts_with("absent")
    }));
}
