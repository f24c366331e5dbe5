//! The files of an open database: locked against other servers, and watched, because SQLite does not
//! notice when a file is deleted or replaced.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::schema::{primary_code, with_suffix};
use crate::store::change::{Change, Queue};
use crate::store::error::{OpenError, StoreError};

/// Interval at which an idle server checks the files.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Free bytes that a disk needs to count as not full: more than SQLite needs for a small change.
const ROOM: usize = 256 * 1024;

/// Locks that keep other servers away from the database. They are `flock` locks, which belong to a
/// handle. SQLite's own locks belong to the process, which loses them when it closes any handle of the
/// database. So these handles are opened before SQLite opens the database, and closed after it closes it.
#[derive(Debug)]
pub(super) struct Locks {
    /// The lock file: excludes servers that use the same name.
    _name: File,
    /// The database itself: excludes servers that use another name for it.
    _database: File,
}

impl Locks {
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let lock_path = with_suffix(path, ".lock");
        let unusable = |error: io::Error, locked: &Path, advice: &str| OpenError::Unusable {
            path: path.to_owned(),
            reason: format!("cannot lock `{}`: {error}; {advice}", locked.display()),
        };
        let lock = |file: File, locked: &Path, in_use: fn(PathBuf) -> OpenError| {
            file.try_lock().map(|()| file).map_err(|error| match error {
                TryLockError::WouldBlock => in_use(path.to_owned()),
                TryLockError::Error(error) => unusable(
                    error,
                    locked,
                    "its file system has to support flock, as local disks do",
                ),
            })
        };
        let name = File::create(&lock_path)
            .map_err(|error| unusable(error, &lock_path, "its folder has to be writable"))?;
        let name = lock(name, &lock_path, OpenError::InUse)?;
        let database = File::options().read(true).append(true).create(true).open(path);
        let database = database
            .map_err(|error| unusable(error, path, "it has to be readable and writable"))?;
        Ok(Self { _name: name, _database: lock(database, path, OpenError::InUseElsewhere)? })
    }
}

/// Device and inode of a file.
type Identity = (u64, u64);

/// The files that SQLite has open, as they were when it opened them.
///
/// `lost` is set once, by the first check that fails: the writer's after a commit, the watch's, or a
/// readiness probe's. The writer reads it before each commit, and from then on refuses every change.
#[derive(Debug)]
pub(super) struct DatabaseFiles {
    folder: PathBuf,
    opened: Vec<(PathBuf, Identity)>,
    /// Name of the first lost file.
    lost: OnceLock<Arc<str>>,
}

impl DatabaseFiles {
    /// The files of a database that SQLite has just opened.
    pub(super) fn of(database: &Path) -> Result<Self, OpenError> {
        let opened = ["", "-wal", "-shm"].map(|suffix| with_suffix(database, suffix));
        let opened = opened.into_iter().map(|path| identity(&path).map(|id| (path, id)));
        let opened = opened.collect::<io::Result<_>>().map_err(|error| OpenError::Unusable {
            path: database.to_owned(),
            reason: format!("one of its files cannot be found: {error}"),
        })?;
        let folder = database.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { folder, opened, lost: OnceLock::new() })
    }

    /// Checks that all files are still those that SQLite has open.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.lost.get().is_none()
            && let Some((path, _)) = self.opened.iter().find(|(path, id)| is_another(path, *id))
        {
            let name: Arc<str> = path.file_name().unwrap_or_default().to_string_lossy().into();
            if self.lost.set(name).is_ok() {
                tracing::error!(
                    file = %path.display(),
                    "a file of the database was deleted or replaced; nothing more is stored: put it \
                     back if it was moved, and restart the server"
                );
            }
        }
        self.known()
    }

    /// Result of the checks so far.
    pub(super) fn known(&self) -> Result<(), StoreError> {
        match self.lost.get() {
            Some(name) => Err(StoreError::FileLost(Arc::clone(name))),
            None => Ok(()),
        }
    }

    /// Distinguishes a full disk from a broken one. SQLite reports both as an I/O error if the space runs
    /// out after the write, as with quotas, thin volumes and network file systems.
    pub(super) fn explain(&self, error: sqlx::Error) -> StoreError {
        const SQLITE_IOERR: i32 = 10;
        const SQLITE_CANTOPEN: i32 = 14;
        match primary_code(&error) {
            Some(SQLITE_IOERR | SQLITE_CANTOPEN) if self.is_disk_full() => StoreError::DiskFull,
            _ => error.into(),
        }
    }

    /// Tries a write: the free space that a file system reports ignores quotas.
    fn is_disk_full(&self) -> bool {
        let write = || {
            let file = tempfile::tempfile_in(&self.folder)?;
            file.write_all_at(&vec![1; ROOM], 0)?;
            file.sync_all()
        };
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        write().is_err_and(|error: io::Error| full.contains(&error.kind()))
    }
}

/// Watches the files until the store is dropped. After a loss, an empty change makes an idle writer
/// notice it.
pub(super) async fn watch(files: Arc<DatabaseFiles>, queue: Queue) {
    let queue = queue.downgrade();
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let Some(queue) = queue() else { return };
        if files.check().is_err() {
            // Fails if the writer has ended.
            let _ = queue.change(|answer| Change::Promote(Vec::new(), answer)).await;
            return;
        }
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    path.metadata().map(|file| (file.dev(), file.ino()))
}

/// Whether the path now names another file or none. Other errors do not prove that.
fn is_another(path: &Path, opened: Identity) -> bool {
    match identity(path) {
        Ok(found) => found != opened,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
