//! Databases a server refuses to open: one sentence, exit code 1, and an unchanged file.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use crate::common::{Server, dummy, endless, refusal, run_sql};

/// Contents and modification times of all files in a folder except the lock.
fn contents(folder: &Path) -> BTreeMap<String, (Option<Vec<u8>>, SystemTime)> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let read = |entry: std::fs::DirEntry| {
        let changed = entry.metadata().unwrap().modified().unwrap();
        (entry.file_name().into_string().unwrap(), (std::fs::read(entry.path()).ok(), changed))
    };
    entries.map(read).filter(|(name, _)| !name.ends_with(".lock")).collect()
}

/// Sentence with which a server refuses the `tasks.db` in this folder.
#[track_caller]
fn refused_untouched(folder: &Path) -> String {
    let before = contents(folder);
    let (code, said) = refusal(folder, &["--listen", "127.0.0.1:0"], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("tasks.db") && said.lines().count() == 1, "one sentence: {said}");
    assert!(contents(folder) == before, "the folder changed: {said}");
    said
}

#[tokio::test]
async fn a_foreign_database_is_refused_and_left_untouched() {
    for statements in [
        &["CREATE TABLE customers (name TEXT)"][..],
        &["CREATE TABLE tasks (id INTEGER PRIMARY KEY, title TEXT NOT NULL)"],
        &["PRAGMA journal_mode = WAL", "CREATE TABLE customers (name TEXT)"],
    ] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tasks.db");
        run_sql(&path, statements).await;
        refused_untouched(folder.path());
    }
}

#[tokio::test]
async fn a_foreign_database_that_crashed_keeps_what_it_had_not_merged_yet() {
    let origin = TempDir::new().unwrap();
    let path = origin.path().join("tasks.db");
    run_sql(&path, &["PRAGMA journal_mode = WAL"]).await;
    let mut foreign = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::query("CREATE TABLE customers (name TEXT)").execute(&mut foreign).await.unwrap();
    let folder = TempDir::new().unwrap();
    for name in ["tasks.db", "tasks.db-wal"] {
        std::fs::copy(origin.path().join(name), folder.path().join(name)).unwrap();
    }
    let wal = folder.path().join("tasks.db-wal");
    let before = [path, wal.clone()].map(|path| std::fs::read(path).unwrap());
    assert!(!before[1].is_empty());
    let (code, said) = refusal(folder.path(), &["--listen", "127.0.0.1:0"], &[]);
    assert_eq!(code, Some(1), "{said}");
    let after = [folder.path().join("tasks.db"), wal].map(|path| std::fs::read(path).ok());
    assert!(after == before.map(Some), "the database was changed: {said}");
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_untouched() {
    for text in ["Dear diary, today I named a file tasks.db. ".repeat(100), "short".to_owned()] {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("tasks.db"), text).unwrap();
        refused_untouched(folder.path());
    }
}

/// Creates a folder with a database of many tasks whose server has stopped.
async fn with_tasks() -> TempDir {
    let mut server = Server::start(&["--max-running", "1"]);
    server.submit(endless()).await;
    for _ in 0..200 {
        server.submit(dummy(0.0)).await;
    }
    server.kill();
    let folder = TempDir::new().unwrap();
    for name in ["tasks.db", "tasks.db-wal"] {
        std::fs::copy(server.folder().join(name), folder.path().join(name)).unwrap();
    }
    // The last connection to close merges the write-ahead log.
    run_sql(&folder.path().join("tasks.db"), &["SELECT count(*) FROM tasks"]).await;
    assert!(!folder.path().join("tasks.db-wal").exists());
    folder
}

#[tokio::test]
async fn a_database_of_a_newer_server_is_refused_and_left_untouched() {
    let folder = with_tasks().await;
    let newer =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (99, 'of tomorrow', 1, x'00', 0)";
    run_sql(&folder.path().join("tasks.db"), &[newer]).await;
    let said = refused_untouched(folder.path());
    assert!(said.contains("newer") && said.contains("99"), "{said}");
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_left_untouched() {
    let folder = with_tasks().await;
    let path = folder.path().join("tasks.db");
    let good = std::fs::read(&path).unwrap();
    let garbage = |range: std::ops::Range<usize>| {
        let mut bytes = good.clone();
        bytes[range].iter_mut().zip(1_u32..).for_each(|(byte, n)| *byte = ((n * 37) >> 3) as u8);
        bytes
    };
    for (what, bytes) in [
        ("cut off after the first page", good[..4096].to_vec()),
        ("cut off in a page", good[..5000].to_vec()),
        ("cut off in the middle", good[..good.len() / 2].to_vec()),
        ("good header, the rest of the first page not", garbage(100..4096)),
        ("good first page, the others not", garbage(4096..good.len())),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let said = refused_untouched(folder.path());
        assert!(said.contains("damaged"), "{what}: {said}");
    }
    std::fs::write(&path, &good).unwrap();
    let tasks = Server::start_in(folder, &[], &[]).get("/tasks?limit=1000").await.body;
    assert_eq!(tasks.as_array().unwrap().len(), 201, "the undamaged copy opens");
}

#[tokio::test]
async fn a_log_that_belongs_to_no_database_is_kept() {
    let folder = with_tasks().await;
    let [database, log] = ["tasks.db", "tasks.db-wal"].map(|name| folder.path().join(name));
    std::fs::write(&log, "what was accepted last").unwrap();
    std::fs::remove_file(&database).unwrap();
    let said = refused_untouched(folder.path());
    assert!(said.contains("tasks.db-wal") && said.contains("put that database back"), "{said}");
    // An empty file is not a database either.
    std::fs::write(&database, "").unwrap();
    refused_untouched(folder.path());
}

#[tokio::test]
async fn a_log_that_is_none_does_no_harm() {
    let folder = with_tasks().await;
    // A power cut may leave this if the disk had acknowledged data without writing it.
    std::fs::write(folder.path().join("tasks.db-wal"), [0x5a; 50_000]).unwrap();
    let server = Server::start_in(folder, &[], &[]);
    let tasks = server.get("/tasks?limit=1000").await.body;
    assert_eq!(tasks.as_array().unwrap().len(), 201);
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tasks.db");
    std::fs::create_dir(&path).unwrap();
    let said = refused_untouched(folder.path());
    assert!(said.contains("directory"), "{said}");
    std::fs::remove_dir(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (code, said) = refusal(folder.path(), &["--listen", "127.0.0.1:0"], &[]);
    assert!(code == Some(1) && said.contains("no regular file"), "{said}");
}

/// Runs the server as an unprivileged user; `None` where that is not possible.
fn as_nobody(folder: &Path) -> Option<(Option<i32>, String)> {
    // Other users may not have access to the build folder.
    let program = folder.with_file_name("task-server");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_task-server"), &program).unwrap();
    }
    let nobody = |args: &[&str]| {
        // Stops the server if it starts after all.
        let mut command = Command::new("timeout");
        command.args(["100", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(&program).args(args).current_dir(folder).output()
    };
    if !nobody(&["--version"]).is_ok_and(|output| output.status.success()) {
        crate::common::skips::skip("cannot run the server as another user");
        return None;
    }
    let output = nobody(&["--listen", "127.0.0.1:0"]).unwrap();
    Some((output.status.code(), String::from_utf8(output.stderr).unwrap()))
}

#[tokio::test]
async fn what_the_server_may_not_write_is_refused_and_left_untouched() {
    let good = with_tasks().await;
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let chmod = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    chmod(folder.path(), 0o755);
    let path = data.join("tasks.db");
    for (what, file_mode, folder_mode, advice) in [
        ("a file to read only", 0o444, 0o777, "able to read and write"),
        ("a file not to be read", 0o222, 0o777, "able to read and write"),
        ("a folder to read only", 0o666, 0o555, "folder has to be writable"),
    ] {
        std::fs::copy(good.path().join("tasks.db"), &path).unwrap();
        chmod(&path, file_mode);
        chmod(&data, folder_mode);
        let before = contents(&data);
        let Some((code, said)) = as_nobody(&data) else { return };
        assert_eq!(code, Some(1), "{what}: {said}");
        assert!(said.contains(advice) && said.lines().count() == 1, "{what}: {said}");
        assert!(contents(&data) == before, "{what}: {said}");
    }
    // No database yet, and no permission to create one.
    std::fs::remove_file(&path).unwrap();
    let Some((code, said)) = as_nobody(&data) else { return };
    assert!(code == Some(1) && said.contains("Permission denied"), "{said}");
}
