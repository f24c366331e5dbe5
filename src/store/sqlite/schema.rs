//! The database file: its owner and its schema.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, Row, SqlSafeStr, SqliteConnection};

use super::import;
use crate::store::error::{OpenError, StoreError};
use crate::task::with_causes;

/// In earlier versions two connections could damage a database in WAL mode.
/// Source: SQLite's release notes of 3.51.3.
const OLDEST_SAFE_SQLITE: [u32; 3] = [3, 51, 3];

/// Stored in the header of our files by the first migration.
pub(super) const APPLICATION_ID: i64 = 1_952_543_595;

/// Steps of the schema. Released ones never change.
pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "tasks", include_str!("../../../migrations/sqlite/0001_tasks.sql")),
    (2, "fewer indexes", include_str!("../../../migrations/sqlite/0002_fewer_indexes.sql")),
    (3, "cheaper checks", include_str!("../../../migrations/sqlite/0003_cheaper_checks.sql")),
    (4, "times", include_str!("../../../migrations/sqlite/0004_times.sql")),
    (
        5,
        "keys outlive tasks",
        include_str!("../../../migrations/sqlite/0005_keys_outlive_tasks.sql"),
    ),
    (6, "retried by", include_str!("../../../migrations/sqlite/0006_retried_by.sql")),
    (7, "task logs", include_str!("../../../migrations/sqlite/0007_task_logs.sql")),
];

/// The database, all files that SQLite and the lock keep beside it, and the state folder.
pub(crate) fn state_files(database: &Path) -> Vec<PathBuf> {
    let files = ["", "-wal", "-shm", "-journal", ".lock"];
    let files = files.into_iter().map(|suffix| with_suffix(database, suffix));
    files.chain([state_folder(database)]).collect()
}

/// Folder for what the server keeps about tasks outside the database.
pub(crate) fn state_folder(database: &Path) -> PathBuf {
    with_suffix(database, "-state")
}

/// Path of the database without symbolic links, so that every name of it leads to the same lock.
/// Creates an empty file if there is none.
///
/// # Errors
/// If the path cannot be a database.
pub(crate) fn real_path(path: &Path) -> Result<PathBuf, OpenError> {
    let unusable = |error: io::Error| {
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("{error}: the user of the server has to be able to read and write it")
            }
            _ => error.to_string(),
        };
        OpenError::Unusable { path: path.to_owned(), reason }
    };
    let length = |path: &Path| path.metadata().map_or(0, |file| file.len());
    // SQLite would delete the log, and with it the latest changes.
    if length(path) == 0 && length(&with_suffix(path, "-wal")) > 0 {
        return Err(OpenError::LogAlone { database: path.display().to_string() });
    }
    let file = File::options().read(true).append(true).create(true).open(path).map_err(unusable)?;
    if !file.metadata().map_err(unusable)?.is_file() {
        let error = io::Error::other("it is no regular file");
        return Err(unusable(error));
    }
    path.canonicalize().map_err(unusable)
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Owner of an existing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Empty, or ours with this schema version.
    Ours(i64),
    /// Written by the FastAPI service.
    PortedService,
    /// Written by another program.
    Foreign,
}

impl Found {
    /// Fails if the file belongs to another program or a newer version.
    pub(super) fn check(self, path: &Path) -> Result<(), OpenError> {
        let known = MIGRATIONS.last().map_or(0, |&(version, ..)| version);
        match self {
            Self::Ours(found) if found > known => {
                Err(OpenError::Newer { path: path.to_owned(), found, known })
            }
            Self::Foreign => Err(OpenError::Foreign(path.to_owned())),
            Self::Ours(_) | Self::PortedService => Ok(()),
        }
    }
}

/// Determines the owner of a file, changing nothing.
pub(super) async fn inspect(path: &Path, options: &SqliteConnectOptions) -> sqlx::Result<Found> {
    if path.metadata().map_or(true, |file| file.len() == 0) {
        return Ok(Found::Ours(0));
    }
    // Read-only, because closing the last writable connection checkpoints the write-ahead log; and
    // `immutable` if there is no log, because a reader would create an empty one.
    let has_log = with_suffix(path, "-wal").exists();
    let options = options.clone().create_if_missing(false).read_only(true).immutable(!has_log);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let found = whose(&mut connection).await;
    // Closed even after an error, so that no file is left behind.
    connection.close().await?;
    found
}

async fn whose(connection: &mut SqliteConnection) -> sqlx::Result<Found> {
    if number(connection, "PRAGMA application_id").await? == APPLICATION_ID {
        let version = number(connection, "SELECT max(version) FROM _sqlx_migrations").await?;
        return Ok(Found::Ours(version));
    }
    if import::is_ported_service(connection).await? {
        return Ok(Found::PortedService);
    }
    // A crash during the first start may have left only the table of migrations.
    let tables = "SELECT count(*) FROM sqlite_schema WHERE tbl_name <> '_sqlx_migrations'";
    if number(connection, tables).await? == 0 || import::has_begun(connection).await? {
        return Ok(Found::Ours(0));
    }
    Ok(Found::Foreign)
}

pub(super) async fn migrate(
    path: &Path,
    connection: &mut SqliteConnection,
    migrations: &[(i64, &'static str, &'static str)],
) -> Result<(), OpenError> {
    let migrations = migrations.iter().map(|&(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let migrator = Migrator::with_migrations(migrations.collect());
    migrator
        .run(connection)
        .await
        .map_err(|error| OpenError::Unusable { path: path.to_owned(), reason: with_causes(&error) })
}

pub(super) async fn check_sqlite(
    connection: &mut SqliteConnection,
) -> sqlx::Result<Result<(), OpenError>> {
    let row = sqlx::query("SELECT sqlite_version()").fetch_one(connection).await?;
    let version: String = row.try_get(0)?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let parts = [0; 3].map(|missing| parts.next().unwrap_or(missing));
    if parts < OLDEST_SAFE_SQLITE {
        return Ok(Err(OpenError::UnsafeSqlite(version)));
    }
    Ok(Ok(()))
}

pub(super) async fn number(
    connection: &mut SqliteConnection,
    sql: &'static str,
) -> sqlx::Result<i64> {
    sqlx::query(sql).fetch_one(connection).await?.try_get(0)
}

pub(super) fn explain(path: &Path, error: &sqlx::Error) -> OpenError {
    const SQLITE_CORRUPT: i32 = 11;
    const SQLITE_NOTADB: i32 = 26;
    match primary_code(error) {
        Some(SQLITE_NOTADB) => OpenError::NotADatabase(path.to_owned()),
        Some(SQLITE_CORRUPT) => OpenError::Damaged(path.to_owned()),
        _ => OpenError::Unusable { path: path.to_owned(), reason: with_causes(error) },
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        const SQLITE_INTERRUPT: i32 = 9;
        const SQLITE_FULL: i32 = 13;
        match primary_code(&error) {
            _ if matches!(error, sqlx::Error::PoolTimedOut) => Self::Overloaded,
            Some(SQLITE_FULL) => Self::DiskFull,
            Some(SQLITE_INTERRUPT) => Self::Overloaded,
            _ => Self::Database(Arc::new(error)),
        }
    }
}

/// Primary result code of SQLite: the lowest byte of an extended one.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff)
}
