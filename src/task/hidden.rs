//! Hidden folders beside the outputs of tasks: each holds an unfinished output under its real name.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, unlinkat};

use super::TaskId;
use super::removal::{open_folder, remove_contents, remove_tree};

/// Folder of an unfinished output, beside its target. It is removed when dropped.
///
/// Its content is reached through a handle, so that nothing that is swapped in under its name is used.
#[derive(Debug)]
pub(super) struct HiddenFolder {
    parent: Dir,
    /// Name in `parent`.
    name: String,
    folder: Dir,
    /// Name of the output, in this folder and later in `parent`.
    output: OsString,
    is_removed: bool,
}

/// Name of the hidden folder of an attempt.
fn hidden_name(id: TaskId, epoch: i64) -> String {
    format!(".{id}.{epoch}.part")
}

/// Returns whether a file of this name could collide with a hidden folder.
pub(super) fn is_hidden_name(name: &OsStr) -> bool {
    let stem = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".part"));
    stem.and_then(|stem| stem.split_once('.')).is_some_and(|(id, _)| id.parse::<TaskId>().is_ok())
}

impl HiddenFolder {
    /// Creates the folder in `parent`, for an output that will be called `output` there.
    pub(super) fn create(
        parent: Dir,
        output: OsString,
        id: TaskId,
        epoch: i64,
    ) -> io::Result<Self> {
        let name = hidden_name(id, epoch);
        mkdirat(&parent, &name, Mode::RWXU)?;
        match open_folder(&parent, name.as_ref()) {
            Ok(folder) => Ok(Self { parent, name, folder, output, is_removed: false }),
            Err(error) => {
                let _ = unlinkat(&parent, &name, AtFlags::REMOVEDIR);
                Err(error)
            }
        }
    }

    /// Creates the output as a file.
    pub(super) fn create_file(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        Ok(openat(&self.folder, &self.output, flags, mode)?.into())
    }

    /// Moves the output to its target, replacing any other file, and waits until that is on disk. Removes
    /// the folder, whatever else is in it.
    pub(super) fn publish(&mut self) -> io::Result<()> {
        if self.is_removed {
            return Ok(());
        }
        renameat(&self.folder, &self.output, &self.parent, &self.output)?;
        if unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR).is_ok() {
            self.is_removed = true;
        } else {
            self.log_leftovers();
            self.remove();
        }
        // After the removal: one sync serves both.
        sync_folder(&self.parent)
    }

    /// Removes the folder and everything in it.
    pub(super) fn remove(&mut self) {
        if std::mem::replace(&mut self.is_removed, true) {
            return;
        }
        // By far the most common case.
        let _ = unlinkat(&self.folder, &self.output, AtFlags::empty());
        if unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR).is_ok() {
            return;
        }
        let removed = remove_contents(&self.folder)
            .and_then(|()| Ok(unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR)?));
        if let Err(error) = removed {
            let folder = &self.name;
            tracing::warn!(%error, folder, "cannot remove the folder of an unfinished output");
        }
    }

    fn log_leftovers(&self) {
        const MOST: usize = 10;
        let Ok(entries) = self.folder.entries() else { return };
        let names = entries.flatten().map(|entry| entry.file_name());
        let names: Vec<_> = names.take(MOST).collect();
        tracing::info!(?names, output = ?self.output, "discarding what stands beside an output");
    }
}

impl Drop for HiddenFolder {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes what an attempt left in a crash beside its target. Returns whether there was anything.
pub(super) fn remove_leftover(parent: &Dir, id: TaskId, epoch: i64) -> bool {
    let name = hidden_name(id, epoch);
    // Versions before hidden folders left a file.
    let removed = remove_tree(parent, &name);
    if let Err(error) = &removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, folder = name, "cannot remove the folder of an unfinished output");
    }
    removed.is_ok()
}

/// Waits until the names in a folder are on disk.
pub(super) fn sync_folder(folder: &Dir) -> io::Result<()> {
    // `folder` may be an O_PATH handle, which cannot be synced.
    folder.open(".")?.into_std().sync_all()
}
