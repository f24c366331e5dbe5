//! Errors of the store.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

/// Failure of a read or a change.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The change was not made.
    #[error("the disk of the database is full: make room and try again")]
    DiskFull,
    /// Too many reads wait, or this one took too long.
    #[error("too many lists are being read: try again")]
    Overloaded,
    /// After an upgrade the history is searched once.
    #[error("still indexing retries after an upgrade: try again")]
    RetriesUnknown,
    /// Nothing more is stored, because the database writes to a file that has lost its name.
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

/// Why the database cannot be used. Its file is left as it was.
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
