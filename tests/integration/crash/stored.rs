//! Rows in the database of a dead server. They show interruptions, which clients cannot see and
//! only an unclean stop may count.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use tempfile::TempDir;

/// Rows by task id.
pub(crate) type Rows = HashMap<String, Stored>;

#[derive(Debug)]
pub(crate) struct Stored {
    status: String,
    attempt: i64,
    max_attempts: i64,
    interruptions: i64,
}

/// Kind of end of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// SIGKILL after it had answered.
    Killed,
    /// SIGKILL during its start: recovery may or may not have run.
    KilledAtBoot,
    /// Exit by itself after a SIGTERM.
    Orderly,
}

/// Reads a copy, because opening the database would change what the next start finds.
pub(crate) async fn read(folder: &Path) -> Rows {
    let copy = TempDir::new().unwrap();
    for name in ["tasks.db", "tasks.db-wal"] {
        if folder.join(name).exists() {
            fs::copy(folder.join(name), copy.path().join(name)).unwrap();
        }
    }
    let options = SqliteConnectOptions::new().filename(copy.path().join("tasks.db"));
    let mut database = options.connect().await.unwrap();
    let sql = "SELECT id, status, attempt, max_attempts, interruptions FROM tasks";
    let rows = sqlx::query(sql).fetch_all(&mut database).await.unwrap();
    database.close().await.unwrap();
    let stored = |row: &sqlx::sqlite::SqliteRow| Stored {
        status: row.get("status"),
        attempt: row.get("attempt"),
        max_attempts: row.get("max_attempts"),
        interruptions: row.get("interruptions"),
    };
    rows.iter().map(|row| (row.get("id"), stored(row))).collect()
}

/// Violations in the rows after this death, compared with those after the previous one.
pub(crate) fn wrong(before: &Rows, now: &Rows, death: Death) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, row) in now {
        let before = before.get(id);
        let least = before.map_or(0, |row| row.interruptions);
        let recovered = least + i64::from(before.is_some_and(|row| row.status == "running"));
        let expected =
            if death == Death::KilledAtBoot { least..=recovered } else { recovered..=recovered };
        if !expected.contains(&row.interruptions) {
            wrong.push(format!(
                "{id} was {before:?} and is {row:?}, expected {expected:?} interruptions"
            ));
        }
        if row.status == "pending" && row.attempt >= row.max_attempts {
            wrong.push(format!("{id} waits with no attempt left: {row:?}, expected one restored"));
        }
        if row.status == "running" && death == Death::Orderly {
            wrong.push(format!("{id} is {row:?} after an orderly stop, expected it to be pending"));
        }
    }
    wrong
}
