//! Opens the database: locked against a second server, known to be ours, and up to date.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqlSafeStr, SqliteConnection};
use tokio::sync::mpsc;

use super::counts::Counts;
use super::files::{self, DatabaseFiles, Locks};
use super::places::{Limits, Places};
use super::positions::PositionCache;
use super::readers::Readers;
use super::times::Times;
use super::writer::State;
use super::{
    QUEUE_LENGTH, Store, Writer, import, primary_code, queries, recovery, retries, runnable,
};
use crate::task::{TaskId, TaskType, with_causes};

/// Before this version two connections could damage a database in WAL mode.
/// Source: SQLite's release notes of 3.51.3.
const OLDEST_SAFE_SQLITE: [u32; 3] = [3, 51, 3];

/// Written into the header of our files by the first migration.
pub(super) const APPLICATION_ID: i64 = 1_952_543_595;

/// Each step of the schema, never changed once it was released.
pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "tasks", include_str!("../../migrations/sqlite/0001_tasks.sql")),
    (2, "fewer indexes", include_str!("../../migrations/sqlite/0002_fewer_indexes.sql")),
    (3, "cheaper checks", include_str!("../../migrations/sqlite/0003_cheaper_checks.sql")),
    (4, "times", include_str!("../../migrations/sqlite/0004_times.sql")),
    (5, "keys outlive tasks", include_str!("../../migrations/sqlite/0005_keys_outlive_tasks.sql")),
    (6, "retried by", include_str!("../../migrations/sqlite/0006_retried_by.sql")),
];

/// Why the database cannot be used. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error(
        "database `{}` is in use by another task-server: stop it, or name another file with --database",
        .0.display()
    )]
    InUse(PathBuf),
    /// Another process holds the lock on the database itself, but not that of its name.
    #[error(
        "database `{}` is in use by another task-server under another name, through a hard link or a \
         bind mount: stop that one, or name another file with --database",
        .0.display()
    )]
    InUseElsewhere(PathBuf),
    /// The file belongs to something else.
    #[error(
        "`{}` is a database of another program: name another file with --database",
        .0.display()
    )]
    Foreign(PathBuf),
    /// Not SQLite at all.
    #[error(
        "`{}` is not a SQLite database: name another file with --database",
        .0.display()
    )]
    NotADatabase(PathBuf),
    /// SQLite, but not in order.
    #[error(
        "database `{}` is damaged: put a good copy in its place, or name another file with --database",
        .0.display()
    )]
    Damaged(PathBuf),
    /// The write-ahead log of a database that is not there.
    #[error(
        "`{database}-wal` holds changes of a database, and there is no `{database}`: put that \
         database back, or move the `-wal` file away"
    )]
    LogAlone {
        /// The database.
        database: String,
    },
    /// Written by a later version of this program.
    #[error(
        "database `{}` was written by a newer task-server (schema {found}, this one knows {known}): use that version",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The SQLite that this program was built with damages files.
    #[error("SQLite {0} can damage a database; build with 3.51.3 or later")]
    UnsafeSqlite(String),
    /// The file or its folder cannot be used.
    #[error("cannot open database `{}`: {reason}", path.display())]
    Unusable {
        /// The database.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// Everything an open database consists of.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    /// Tasks that wait for a time.
    pub(crate) due: Vec<recovery::StoredDue>,
    /// Pending tasks of types that are not known, by `seq`.
    pub(crate) unrunnable: Vec<i64>,
}

/// The files that SQLite and the lock keep beside the database, and the database itself.
pub(crate) fn state_files(database: &Path) -> Vec<PathBuf> {
    ["", "-wal", "-shm", "-journal", ".lock"].map(|suffix| with_suffix(database, suffix)).into()
}

/// The path of the database without symbolic links, so that all who name it find the same lock.
/// Makes an empty file where there is none.
///
/// # Errors
/// If there is something that no database can be.
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
    // SQLite would erase it, and with it what was accepted last.
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

/// Opens the database, making or updating it as needed, and puts right what a crash left behind.
/// `remove_partial` is called for the output of each attempt that the crash interrupted, before
/// that attempt is forgotten.
///
/// # Errors
/// See [`OpenError`]; files that are not ours are left as they are.
pub(crate) async fn open(
    path: &Path,
    limits: Limits,
    remove_partial: impl Fn(&str, TaskId, i64),
) -> Result<Opened, OpenError> {
    // Before SQLite opens the database for the first time.
    let locks = Locks::take(path)?;
    let failed = |error: sqlx::Error| explain(path, &error);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging();
    let known = MIGRATIONS.last().map_or(0, |&(version, ..)| version);
    let found = inspect(path, &options).await.map_err(failed)?;
    match found {
        Found::Ours(found) if found > known => {
            return Err(OpenError::Newer { path: path.to_owned(), found, known });
        }
        Found::Foreign => return Err(OpenError::Foreign(path.to_owned())),
        Found::Ours(_) | Found::PortedService => {}
    }

    let options = options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", "67108864");
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
    check_sqlite(&mut connection).await.map_err(failed)??;
    if found == Found::PortedService {
        import::begin(&mut connection).await.map_err(failed)?;
    }
    migrate(path, &mut connection, MIGRATIONS).await?;
    import::finish(&mut connection).await.map_err(failed)?;
    recovery::recover(&mut connection, remove_partial).await.map_err(failed)?;
    let due = recovery::due(&mut connection).await.map_err(failed)?;
    let unrunnable = runnable::of_unknown_types(&mut connection, &limits).await.map_err(failed)?;
    let suspects = recovery::has_suspects(&mut connection).await.map_err(failed)?;
    let last_seq = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'tasks'";
    let next_seq = number(&mut connection, last_seq).await.map_err(failed)? + 1;
    let next_seq = Arc::new(AtomicI64::new(next_seq));

    let times = Arc::new(Times::read(&mut connection).await.map_err(failed)?);
    let retries_known = retries::are_known(&mut connection).await.map_err(failed)?;
    let types = types(&mut connection).await.map_err(failed)?;
    let options = options.read_only(true).create_if_missing(false);
    let counting = SqliteConnection::connect_with(&options).await.map_err(failed)?;
    let counts = Counts::read(counting).await.map_err(failed)?;
    let readers = Readers::open(options).await.map_err(failed)?;
    let files = Arc::new(DatabaseFiles::of(path)?);
    let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
    tokio::spawn(files::watch(Arc::clone(&files), sender.downgrade()));
    let claiming = Arc::new(AtomicBool::new(true));
    let (lookups, asked) = mpsc::unbounded_channel();
    tokio::spawn(queries::look_up(readers.clone(), asked));
    let positions = Arc::<PositionCache>::default();
    let state = State::new(
        Arc::clone(&claiming),
        Places::new(limits, suspects),
        Arc::clone(&next_seq),
        Arc::clone(&counts),
        Arc::clone(&times),
        Arc::clone(&positions),
    );
    let writer = Writer::new(connection, locks, Arc::clone(&files), receiver, state);
    let log = with_suffix(path, "-wal");
    let store = Store {
        queue: sender,
        readers,
        lookups,
        claiming,
        counts,
        times,
        positions,
        retries_known,
        next_seq,
        types,
        log,
        files,
    };
    Ok(Opened { store, writer, due, unrunnable })
}

/// Whose file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Nobody's, or our own with a schema of this version.
    Ours(i64),
    /// The FastAPI service wrote it.
    PortedService,
    /// Another program did.
    Foreign,
}

/// Looks whose file this is, changing nothing.
async fn inspect(path: &Path, options: &SqliteConnectOptions) -> sqlx::Result<Found> {
    if path.metadata().map_or(true, |file| file.len() == 0) {
        return Ok(Found::Ours(0));
    }
    // Read-only, because closing the last connection of another kind merges a write-ahead log; and
    // where there is no such log `immutable`, because a reader would leave an empty one.
    let has_log = with_suffix(path, "-wal").exists();
    let options = options.clone().create_if_missing(false).read_only(true).immutable(!has_log);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let found = whose(&mut connection).await;
    // Closed even after an error, so that nothing of the look stays behind.
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
    // A crash right at the beginning may have left no more than the table of migrations.
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

/// Names of the known task types, and of those that stored tasks have beside them.
async fn types(connection: &mut SqliteConnection) -> sqlx::Result<Arc<[String]>> {
    let mut names: Vec<_> = TaskType::names().map(str::to_owned).collect();
    for row in &sqlx::query("SELECT name FROM task_types").fetch_all(connection).await? {
        let name: String = row.try_get(0)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names.into())
}

async fn check_sqlite(connection: &mut SqliteConnection) -> sqlx::Result<Result<(), OpenError>> {
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
