//! The files of an open database: locked against other servers, and watched, because SQLite does not
//! notice when one of them is deleted or replaced.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::schema::{primary_code, with_suffix};
use crate::store::change::{Change, Queue};
use crate::store::error::{OpenError, StoreError};

/// Pause between two looks at the files while nothing is stored.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Room that a disk needs, in bytes, to count as not full: more than SQLite wants for one small change.
const ROOM: usize = 256 * 1024;

/// The locks that keep other servers away from the database. They are `flock` locks, which belong to
/// their handle. SQLite's own locks belong to the process, and it loses them when it closes any handle of
/// the database. So these handles are opened before SQLite opens the database, and closed after it has
/// closed it.
#[derive(Debug)]
pub(super) struct Locks {
    /// A file of its own, for all who use the same name.
    _name: File,
    /// The database itself, for those who reach it by another name.
    _database: File,
}

impl Locks {
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let lock_path = with_suffix(path, ".lock");
        let unusable = |error: io::Error, locked: &Path, advice: &str| OpenError::Unusable {
            path: path.to_owned(),
            reason: format!("cannot lock `{}`: {error}; {advice}", locked.display()),
        };
        let unlockable = |error: io::Error, locked: &Path| {
            unusable(error, locked, "its file system has to support flock, as local disks do")
        };
        let name = File::create(&lock_path)
            .map_err(|error| unusable(error, &lock_path, "its folder has to be writable"))?;
        match name.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(unlockable(error, &lock_path)),
        }
        let database = File::options().read(true).append(true).create(true).open(path);
        let database = database
            .map_err(|error| unusable(error, path, "it has to be readable and writable"))?;
        match database.try_lock() {
            Ok(()) => Ok(Self { _name: name, _database: database }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUseElsewhere(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(unlockable(error, path)),
        }
    }
}

/// Device and inode of a file.
type Identity = (u64, u64);

/// The files that SQLite has open, as they were when it opened them.
///
/// `lost` is set once, by the first to notice: the writer, which looks after commits, the watch, or a
/// readiness probe. From then on the writer refuses every change.
#[derive(Debug)]
pub(super) struct DatabaseFiles {
    folder: PathBuf,
    opened: Vec<(PathBuf, Identity)>,
    /// The name of the first file that was missed.
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

    /// Looks whether all files are still those that SQLite has open.
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

    /// What the last look has found.
    pub(super) fn known(&self) -> Result<(), StoreError> {
        match self.lost.get() {
            Some(name) => Err(StoreError::FileLost(Arc::clone(name))),
            None => Ok(()),
        }
    }

    /// Tells a full disk from a broken one. SQLite reports both as an I/O error if the room is missed
    /// later than at the write, as with quotas, thin volumes and network file systems.
    pub(super) fn explain(&self, error: sqlx::Error) -> StoreError {
        const SQLITE_IOERR: i32 = 10;
        const SQLITE_CANTOPEN: i32 = 14;
        match primary_code(&error) {
            Some(SQLITE_IOERR | SQLITE_CANTOPEN) if self.is_disk_full() => StoreError::DiskFull,
            _ => error.into(),
        }
    }

    /// Tries it out, because no number that a file system tells knows of quotas.
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

/// Watches the files until the store is gone. The writer is given an empty change, in case it has nothing
/// to do, to look at what was found.
pub(super) async fn watch(files: Arc<DatabaseFiles>, queue: Queue) {
    let queue = queue.downgrade();
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let Some(queue) = queue.upgrade() else { return };
        if files.check().is_err() {
            // Without a writer there is nothing to look at any more.
            let _ = queue.change(|answer| Change::Promote(Vec::new(), answer)).await;
            return;
        }
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    path.metadata().map(|file| (file.dev(), file.ino()))
}

/// Whether this is not the file that it was. What cannot be looked at for another reason than that it is
/// absent may well be there.
fn is_another(path: &Path, opened: Identity) -> bool {
    match identity(path) {
        Ok(found) => found != opened,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
