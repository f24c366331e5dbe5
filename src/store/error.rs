//! Errors of the store.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

/// Failure of a read or change.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The change was not made.
    #[error("the disk of the database is full: make room and try again")]
    DiskFull,
    /// Too many scans are waiting, or this one took too long.
    #[error("too many lists are being read: try again")]
    Overloaded,
    /// The backfill of `retried_by` after an upgrade has not finished.
    #[error("still indexing retries after an upgrade: try again")]
    RetriesUnknown,
    /// A database file was deleted or replaced while open, so changes would be lost.
    #[error(
        "`{0}` was deleted or replaced while in use, so nothing can be stored: move it back if it was \
         moved, then restart the server"
    )]
    FileLost(Arc<str>),
    /// Anything else.
    #[error("the database failed")]
    Database(#[source] Arc<dyn Error + Send + Sync>),
    /// The writer has ended.
    #[error("the database is closed")]
    Closed,
}

/// Why the database cannot be opened. Its file is left unchanged.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error(
        "database `{}` is in use by another task-server: stop it, or name another file with --database",
        .0.display()
    )]
    InUse(PathBuf),
    /// Another process holds the lock on the file itself, but not on its name.
    #[error(
        "database `{}` is in use by another task-server under another name, through a hard link or a \
         bind mount: stop that one, or name another file with --database",
        .0.display()
    )]
    InUseElsewhere(PathBuf),
    /// The file belongs to another program.
    #[error(
        "`{}` is a database of another program: name another file with --database",
        .0.display()
    )]
    Foreign(PathBuf),
    /// The file is not SQLite.
    #[error(
        "`{}` is not a SQLite database: name another file with --database",
        .0.display()
    )]
    NotADatabase(PathBuf),
    /// SQLite reports corruption.
    #[error(
        "database `{}` is damaged: put a good copy in its place, or name another file with --database",
        .0.display()
    )]
    Damaged(PathBuf),
    /// There is a write-ahead log, but no database.
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
        /// Its schema version.
        found: i64,
        /// The latest known schema version.
        known: i64,
    },
    /// This program was built with a version of SQLite that can damage files.
    #[error("SQLite {0} can damage a database; build with 3.51.3 or later")]
    UnsafeSqlite(String),
    /// The file or its folder cannot be used.
    #[error("cannot open database `{}`: {reason}", path.display())]
    Unusable {
        /// The database.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
}
