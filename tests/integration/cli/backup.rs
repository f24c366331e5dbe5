//! `backup`, and a server that starts from the copy.

use std::path::Path;

use tempfile::TempDir;

use crate::cli::program::Ended;
use crate::common::{self, Server, dummy, endless};

fn backup(folder: &Path, args: &[&str]) -> Ended {
    common::run(folder, &[&["backup"], args].concat(), &[]).into()
}

/// Starts a server from a copy in its own folder.
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
    // The copied server continues.
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
async fn the_database_is_that_of_the_settings_file() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("ours.toml"), "database = 'ours.db'\n").unwrap();
    // An old database that is no longer used.
    std::fs::write(folder.path().join("tasks.db"), "").unwrap();
    let mut server = Server::start_in(folder, &["--config", "ours.toml"], &[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    backup(server.folder(), &["flag.db", "--config", "ours.toml"]).with(0);
    let env = [("TASK_SERVER_CONFIG", "ours.toml")];
    let by_env: Ended = common::run(server.folder(), &["backup", "env.db"], &env).into();
    by_env.with(0);
    for copy in ["flag.db", "env.db"] {
        let restored = restore(&server.folder().join(copy));
        assert_eq!(restored.task(&id).await["status"], "completed");
    }
    let absent = backup(server.folder(), &["copy.db", "--config", "absent.toml"]).with(64);
    assert!(absent.stderr.contains("`absent.toml`"), "{absent}");
    server.kill();
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

/// Number of unfinished copies.
fn parts(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".part")).count()
}

/// Creates a folder with a database that takes a while to copy.
async fn large_database() -> TempDir {
    let mut server = Server::start(&[]);
    server.terminate();
    server.wait_exit();
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("tasks.db");
    std::fs::copy(server.folder().join("tasks.db"), &database).unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let fill = "INSERT INTO idempotency_keys WITH RECURSIVE n (i) AS \
                    (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
                SELECT i, hex(zeroblob(50000)), '', 0 FROM n";
    sqlx::query(fill).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    folder
}

/// Starts a backup and sends a signal while it copies.
fn interrupted(folder: &Path, signal: &str) -> Option<i32> {
    let mut copying = common::piped(folder, &["backup", "copy.db"], &[]);
    while parts(folder) == 0 {
        assert!(copying.try_wait().unwrap().is_none(), "the backup ended before the signal");
    }
    let kill = format!("kill -{signal} {}", copying.id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    copying.wait().unwrap().code()
}

#[tokio::test]
async fn a_backup_that_is_interrupted_leaves_nothing() {
    let folder = large_database().await;
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        assert_eq!(interrupted(folder.path(), signal), Some(code), "SIG{signal}");
        assert_eq!(parts(folder.path()), 0, "after SIG{signal}");
        assert!(!folder.path().join("copy.db").exists());
    }
}

#[tokio::test]
async fn a_backup_removes_what_a_killed_one_has_left_and_nothing_else() {
    let folder = large_database().await;
    assert_eq!(interrupted(folder.path(), "KILL"), None);
    assert_eq!(parts(folder.path()), 1, "a killed process cannot clean up");
    std::fs::write(folder.path().join(".backup-of-another-program.part"), "precious").unwrap();
    // A running backup is left alone by the next one.
    let mut copying = common::piped(folder.path(), &["backup", "first.db"], &[]);
    backup(folder.path(), &["second.db"]).with(0);
    assert_eq!(copying.wait().unwrap().code(), Some(0));
    assert_eq!(parts(folder.path()), 1);
    assert!(folder.path().join(".backup-of-another-program.part").exists());
}
