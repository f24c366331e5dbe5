//! Hidden folders beside the outputs of tasks: each holds an unfinished output under its real name.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};

use cap_std::fs::Dir;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, mkdirat, openat, renameat, renameat_with, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::TaskId;
use super::files::{MARKER, is_published_folder};
use super::removal::{open_folder, remove_contents, remove_tree};

/// Folder of an unfinished output, beside its target. It is removed when dropped.
///
/// Its content is reached through a handle, so that nothing that is swapped in under its name is used.
#[derive(Debug)]
pub(super) struct HiddenFolder {
    parent: Dir,
    id: TaskId,
    epoch: i64,
    folder: Dir,
    /// Name of the output, in this folder and later in `parent`.
    output: OsString,
    is_removed: bool,
}

/// Name of the hidden folder of an attempt.
fn hidden_name(id: TaskId, epoch: i64) -> String {
    format!(".{id}.{epoch}.part")
}

/// Name of an earlier output that an attempt has set aside.
fn old_name(id: TaskId, epoch: i64) -> String {
    format!(".{id}.{epoch}.old")
}

/// Returns whether an output of this name could be mistaken for something of the server.
pub(super) fn is_hidden_name(name: &OsStr) -> bool {
    let Some(hidden) = name.to_str().and_then(|name| name.strip_prefix('.')) else { return false };
    let stem = hidden.strip_suffix(".part").or_else(|| hidden.strip_suffix(".old"));
    let id = stem.and_then(|stem| stem.split_once('.')).map(|(id, _)| id.parse::<TaskId>());
    name == MARKER || id.is_some_and(|id| id.is_ok())
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
            Ok(folder) => Ok(Self { parent, id, epoch, folder, output, is_removed: false }),
            Err(error) => {
                let _ = unlinkat(&parent, &name, AtFlags::REMOVEDIR);
                Err(error)
            }
        }
    }

    pub(super) fn name(&self) -> String {
        hidden_name(self.id, self.epoch)
    }

    /// Creates the output as a file.
    pub(super) fn create_file(&self) -> io::Result<File> {
        create_new(&self.folder, &self.output)
    }

    /// Creates the output as an empty folder.
    pub(super) fn create_folder(&self) -> io::Result<()> {
        Ok(mkdirat(&self.folder, &self.output, Mode::from_raw_mode(0o777))?)
    }

    /// Type of the output; `None` if there is none. A link is not followed.
    pub(super) fn find(&self) -> io::Result<Option<FileType>> {
        match statat(&self.folder, &self.output, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the content of a file is on disk.
    pub(super) fn sync_file(&self) -> io::Result<()> {
        // Without O_NONBLOCK, opening a pipe would wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.folder, &self.output, flags, Mode::empty())?;
        File::from(file).sync_all()
    }

    /// Returns whether the output is an empty folder.
    pub(super) fn is_empty_folder(&self) -> io::Result<bool> {
        Ok(open_folder(&self.folder, &self.output)?.entries()?.next().is_none())
    }

    /// Marks a folder as an output, and waits until everything in it is on disk.
    pub(super) fn sync_folder(&self, marker: &str) -> io::Result<()> {
        let folder = open_folder(&self.folder, &self.output)?;
        // A program may have copied an earlier output.
        match remove_tree(&folder, MARKER) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        create_new(&folder, MARKER.as_ref())?.write_all(marker.as_bytes())?;
        sync_all_of(&folder)
    }

    /// Moves the output to its target, replacing any other file, and waits until that is on disk. Removes
    /// this folder, whatever else is in it.
    pub(super) fn publish_file(&mut self) -> io::Result<()> {
        if self.is_removed {
            return Ok(());
        }
        renameat(&self.folder, &self.output, &self.parent, &self.output)?;
        self.clean_up();
        // After the removal: one sync serves both.
        sync_names(&self.parent)
    }

    /// Like [`publish_file`](Self::publish_file), for a folder. Replaces an empty folder, or one that an
    /// earlier task published; any other is an error of kind `DirectoryNotEmpty`.
    pub(super) fn publish_folder(&mut self) -> io::Result<()> {
        if self.is_removed {
            return Ok(());
        }
        match renameat(&self.folder, &self.output, &self.parent, &self.output) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => self.replace_folder()?,
            renamed => renamed?,
        }
        // Before the removal: the new one must be there before the old one is not.
        sync_names(&self.parent)?;
        self.clean_up();
        sync_names(&self.parent)
    }

    fn replace_folder(&self) -> io::Result<()> {
        if !is_published_folder(&self.parent.open_dir(&self.output)?)? {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (folder, parent, output) = (&self.folder, &self.parent, &self.output);
        match renameat_with(folder, output, parent, output, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.set_aside_and_replace(),
            exchanged => Ok(exchanged?),
        }
    }

    /// For file systems that cannot exchange. After a crash between the two steps, the next start puts the
    /// old folder back.
    fn set_aside_and_replace(&self) -> io::Result<()> {
        let old = old_name(self.id, self.epoch);
        renameat(&self.parent, &self.output, &self.parent, &old)?;
        let renamed = renameat(&self.folder, &self.output, &self.parent, &self.output);
        match renamed {
            Ok(()) => remove_tree(&self.parent, &old),
            Err(error) => {
                renameat(&self.parent, &old, &self.parent, &self.output)?;
                Err(error.into())
            }
        }
    }

    /// Removes the folder once the output has left it.
    fn clean_up(&mut self) {
        if unlinkat(&self.parent, self.name(), AtFlags::REMOVEDIR).is_ok() {
            self.is_removed = true;
        } else {
            self.log_leftovers();
            self.remove();
        }
    }

    /// Removes the folder and everything in it.
    pub(super) fn remove(&mut self) {
        if std::mem::replace(&mut self.is_removed, true) {
            return;
        }
        let name = self.name();
        // By far the most common case.
        let _ = unlinkat(&self.folder, &self.output, AtFlags::empty());
        if unlinkat(&self.parent, &name, AtFlags::REMOVEDIR).is_ok() {
            return;
        }
        let removed = remove_contents(&self.folder)
            .and_then(|()| Ok(unlinkat(&self.parent, &name, AtFlags::REMOVEDIR)?));
        if let Err(error) = removed {
            warn_left(&error, &name);
        }
    }

    fn log_leftovers(&self) {
        const MOST: usize = 10;
        let Ok(entries) = self.folder.entries() else { return };
        // After an exchange, the earlier output has this name.
        let names = entries.flatten().map(|entry| entry.file_name());
        let names: Vec<_> = names.filter(|name| *name != self.output).take(MOST).collect();
        if !names.is_empty() {
            tracing::info!(?names, output = ?self.output, "discarding what stands beside an output");
        }
    }
}

impl Drop for HiddenFolder {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes what an attempt left in a crash beside its target, and puts back an earlier output that it had
/// set aside. Returns whether there was anything to remove.
pub(super) fn remove_leftover(parent: &Dir, output: &OsStr, id: TaskId, epoch: i64) -> bool {
    let old = old_name(id, epoch);
    let is_there = |name: &OsStr| statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    if is_there(old.as_ref()) {
        let done = match is_there(output) {
            true => remove_tree(parent, &old),
            false => renameat(parent, &old, parent, output).map_err(io::Error::from),
        };
        match done {
            Ok(()) => tracing::info!(?output, "recovered an output that was being replaced"),
            Err(error) => warn_left(&error, &old),
        }
    }
    let name = hidden_name(id, epoch);
    // Versions before hidden folders left a file.
    match remove_tree(parent, &name) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            warn_left(&error, &name);
            false
        }
    }
}

fn warn_left(error: &io::Error, folder: &str) {
    tracing::warn!(%error, folder, "cannot remove the folder of an unfinished output");
}

fn create_new(folder: &Dir, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::from_raw_mode(0o666))?.into())
}

/// Waits until the names in a folder are on disk.
pub(super) fn sync_names(folder: &Dir) -> io::Result<()> {
    // `folder` may be an O_PATH handle, which cannot be synced.
    folder.open(".")?.into_std().sync_all()
}

/// Waits until everything below a folder is on disk: as many files as it may hold, one call is faster.
fn sync_all_of(folder: &Dir) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(folder)?;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        rustix::fs::sync();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cap_std::ambient_authority;
    use tempfile::TempDir;

    use super::*;

    fn hidden(folder: &TempDir, id: TaskId) -> HiddenFolder {
        let parent = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        HiddenFolder::create(parent, "out".into(), id, 1).unwrap()
    }

    /// A published folder, and another version of it that is not yet published.
    fn two_versions() -> (TempDir, TaskId, HiddenFolder) {
        let (folder, id) = (TempDir::new().unwrap(), TaskId::new());
        fs::create_dir(folder.path().join("out")).unwrap();
        fs::write(folder.path().join("out/old"), "").unwrap();
        fs::write(folder.path().join("out").join(MARKER), format!("{{\"task_id\":\"{id}\"}}"))
            .unwrap();
        let new = hidden(&folder, id);
        new.create_folder().unwrap();
        fs::write(folder.path().join(new.name()).join("out/new"), "").unwrap();
        (folder, id, new)
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path().join("out")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != MARKER).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_is_replaced_with_and_without_an_exchange() {
        for exchanges in [true, false] {
            let (folder, _, mut new) = two_versions();
            match exchanges {
                true => new.publish_folder().unwrap(),
                false => {
                    new.set_aside_and_replace().unwrap();
                    new.clean_up();
                }
            }
            assert_eq!(names(&folder), ["new"]);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn the_earlier_folder_is_put_back_after_a_crash_or_an_error() {
        let (folder, id, new) = two_versions();
        let old = old_name(id, 1);
        // As a crash between the two steps leaves it.
        fs::rename(folder.path().join("out"), folder.path().join(&old)).unwrap();
        let parent = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        assert!(remove_leftover(&parent, "out".as_ref(), id, 1));
        assert_eq!(names(&folder), ["old"]);
        // As a crash after both steps leaves it.
        fs::create_dir_all(folder.path().join(&old).join("more")).unwrap();
        assert!(!remove_leftover(&parent, "out".as_ref(), id, 1));
        assert!(!folder.path().join(&old).exists());
        // The new version is gone.
        new.set_aside_and_replace().unwrap_err();
        assert_eq!(names(&folder), ["old"]);
        drop(new);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_of_someone_else_is_not_replaced() {
        let (folder, _, mut new) = two_versions();
        for marker in ["", "{}", "{\"task_id\": 7}", "{\"task_id\": \"mine\"}"] {
            fs::write(folder.path().join("out").join(MARKER), marker).unwrap();
            let error = new.publish_folder().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::DirectoryNotEmpty, "{marker}");
        }
        fs::remove_file(folder.path().join("out").join(MARKER)).unwrap();
        new.publish_folder().unwrap_err();
        assert_eq!(names(&folder), ["old"]);
    }
}
