//! The embedded engine: SQLite in WAL mode, with one connection for writes and a few for reads.

mod backup;
mod claims;
mod columns;
mod commit;
mod files;
mod import;
mod list;
mod logs;
mod outputs;
mod positions;
mod readers;
mod reads;
mod ready;
mod recovery;
mod retention;
mod retries;
mod schema;
mod statements;
mod submissions;
mod times;
mod transaction;
mod transitions;
mod types;
mod upkeep;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::mpsc;

pub(crate) use backup::{BackupError, backup};
pub(super) use commit::WriteHalf;
use files::{DatabaseFiles, Locks};
use readers::Readers;
pub(crate) use reads::ReadHalf;
use schema::{Found, MIGRATIONS, explain, number, with_suffix};
pub(crate) use schema::{real_path, state_files, state_folder};
use times::Times;
use types::KnownTypes;
pub(super) use upkeep::upkeep;

use super::change::Queue;
use super::error::OpenError;
use super::record::StoredDue;
use super::slots::Limits;
use crate::task::TaskId;

/// The two halves of the engine, and the state of the stored tasks at the start.
pub(super) struct Opened {
    pub(super) write: WriteHalf,
    pub(super) read: ReadHalf,
    pub(super) due: Vec<StoredDue>,
    /// Whether any task was interrupted twice.
    pub(super) suspects: bool,
}

/// Opens the database; see [`open`](super::open).
pub(super) async fn open(
    path: &Path,
    limits: &Limits,
    remove_partial: impl Fn(&str, TaskId, i64),
    queue: &Queue,
) -> Result<Opened, OpenError> {
    // Must precede the first open by SQLite; see `Locks`.
    let locks = Locks::take(path)?;
    let failed = |error: sqlx::Error| explain(path, &error);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging();
    let found = schema::inspect(path, &options).await.map_err(failed)?;
    found.check(path)?;

    let options = options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", "67108864");
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
    schema::check_sqlite(&mut connection).await.map_err(failed)??;
    if found == Found::PortedService {
        import::begin(&mut connection).await.map_err(failed)?;
    }
    schema::migrate(path, &mut connection, MIGRATIONS).await?;
    import::finish(&mut connection).await.map_err(failed)?;
    recovery::recover(&mut connection, remove_partial).await.map_err(failed)?;
    let files = Arc::new(DatabaseFiles::of(path)?);
    tokio::spawn(files::watch(Arc::clone(&files), queue.clone()));
    read_all(path, connection, options, limits, (locks, files)).await.map_err(failed)
}

/// Reads the initial state of both halves, and opens the connections for reads.
async fn read_all(
    path: &Path,
    mut connection: SqliteConnection,
    options: SqliteConnectOptions,
    limits: &Limits,
    (locks, files): (Locks, Arc<DatabaseFiles>),
) -> sqlx::Result<Opened> {
    let due = recovery::due(&mut connection).await?;
    let suspects = recovery::has_suspects(&mut connection).await?;
    let last_seq = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'tasks'";
    let next_seq = Arc::new(AtomicI64::new(number(&mut connection, last_seq).await? + 1));
    let times = Arc::new(Times::read(&mut connection).await?);
    let retries_known = retries::are_known(&mut connection).await?;
    let types = Arc::new(KnownTypes::read(&mut connection, limits).await?);
    let options = options.read_only(true).create_if_missing(false);
    let counting = SqliteConnection::connect_with(&options).await?;
    let counts = recovery::count(counting, limits).await?;
    let readers = Readers::open(options).await?;
    let (lookups, asked) = mpsc::unbounded_channel();
    tokio::spawn(reads::look_up(readers.clone(), asked));
    let read = ReadHalf {
        readers,
        lookups,
        counts,
        times,
        positions: Arc::default(),
        retries_known,
        next_seq,
        types,
        log: Arc::new(with_suffix(path, "-wal")),
        files,
    };
    let folder_outputs = outputs::has_folders(&mut connection).await?;
    let write = WriteHalf::new(connection, locks, folder_outputs, &read);
    Ok(Opened { write, read, due, suspects })
}
