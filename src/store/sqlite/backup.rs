//! Backup of the database, even while a server uses it.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tempfile::{Builder, NamedTempFile, TempDir};

use super::schema::{APPLICATION_ID, explain, number};
use crate::store::error::OpenError;

/// Prefix and suffix of the folder for an unfinished copy. No other program uses them.
const PART_PREFIX: &str = ".task-server-backup-";
const PART_SUFFIX: &str = ".part";

/// A finished and verified copy.
#[derive(Debug)]
pub(crate) struct Backup {
    pub(crate) bytes: u64,
    pub(crate) tasks: i64,
}

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("there is no database `{}`: name it with --database", .0.display())]
    NoDatabase(PathBuf),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("`{}` is there already, and is left as it is: name another file", .0.display())]
    Exists(PathBuf),
    #[error("cannot write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot copy the database")]
    Copy(#[source] sqlx::Error),
    #[error("the copy is damaged, so the database may be too: {0}")]
    Damaged(String),
}

/// Copies one snapshot of the database to a new file, which appears when it is complete, synced and
/// verified. Delays no other user of the database. Dropping the future leaves nothing behind.
pub(crate) async fn backup(database: &Path, target: &Path) -> Result<Backup, BackupError> {
    if !database.exists() {
        return Err(BackupError::NoDatabase(database.to_owned()));
    }
    if target.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(target.to_owned()));
    }
    let write_error = |source| BackupError::Write { path: target.to_owned(), source };
    let folder = match target.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    remove_abandoned(folder);
    let part_folder = PartFolder::new(folder).map_err(write_error)?;
    let part = NamedTempFile::new_in(&part_folder.folder).map_err(write_error)?;
    copy(database, part.path()).await?;
    // VACUUM INTO does not sync its output.
    part.as_file().sync_all().map_err(write_error)?;
    let tasks = check(part.path()).await?;
    let bytes = part.as_file().metadata().map_err(write_error)?.len();
    part.persist_noclobber(target).map_err(|failed| match failed.error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(target.to_owned()),
        _ => write_error(failed.error),
    })?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(write_error)?;
    Ok(Backup { bytes, tasks })
}

/// Folder for an unfinished copy, removed on drop with all its content. Its lock shows that its process
/// is alive. The lock is on the folder, because one on the copy would block SQLite where `flock` and
/// `fcntl` locks conflict, as on NFS.
struct PartFolder {
    folder: TempDir,
    _lock: File,
}

impl PartFolder {
    fn new(parent: &Path) -> io::Result<Self> {
        loop {
            let folder =
                Builder::new().prefix(PART_PREFIX).suffix(PART_SUFFIX).tempdir_in(parent)?;
            let lock = File::open(&folder)?;
            match lock.try_lock() {
                // Another backup removed it as abandoned before it was locked.
                Err(TryLockError::WouldBlock) => {}
                Ok(()) if lock.metadata()?.nlink() == 0 => {}
                // Without lock support it cannot look abandoned either.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok(Self { folder, _lock: lock }),
            }
        }
    }
}

/// Removes the folders of backups whose process was killed, as far as possible.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = parent.read_dir() else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_part = name.starts_with(PART_PREFIX) && name.ends_with(PART_SUFFIX);
        if !is_part || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Ok(folder) = File::open(entry.path())
            && folder.try_lock().is_ok()
        {
            // Held until the folder is gone.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Copies the committed content into an empty file.
async fn copy(database: &Path, part: &Path) -> Result<(), BackupError> {
    let options = SqliteConnectOptions::new()
        .filename(database)
        .read_only(true)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging();
    let open_error = |error: sqlx::Error| explain(database, &error);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(open_error)?;
    let id = number(&mut connection, "PRAGMA application_id").await.map_err(open_error)?;
    if id != APPLICATION_ID {
        return Err(OpenError::Foreign(database.to_owned()).into());
    }
    let name = part.to_str().ok_or_else(|| BackupError::Write {
        path: part.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidFilename, "the path is not UTF-8"),
    })?;
    sqlx::query("VACUUM INTO ?")
        .bind(name)
        .execute(&mut connection)
        .await
        .map_err(BackupError::Copy)?;
    connection.close().await.map_err(BackupError::Copy)
}

/// Verifies the copy; returns its number of tasks.
async fn check(part: &Path) -> Result<i64, BackupError> {
    // The file is private, and a write-ahead log beside it would be left behind.
    let options = SqliteConnectOptions::new()
        .filename(part)
        .read_only(true)
        .immutable(true)
        .disable_statement_logging();
    let damaged = |error: sqlx::Error| BackupError::Damaged(error.to_string());
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(damaged)?;
    let row = sqlx::query("PRAGMA quick_check").fetch_one(&mut connection).await;
    let verdict: String = row.and_then(|row| row.try_get(0)).map_err(damaged)?;
    if verdict != "ok" {
        return Err(BackupError::Damaged(verdict));
    }
    let tasks = number(&mut connection, "SELECT count(*) FROM tasks").await.map_err(damaged)?;
    connection.close().await.map_err(damaged)?;
    Ok(tasks)
}
