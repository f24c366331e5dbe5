//! Outputs of tasks: checked at submission, created in hidden folders, cleaned up after a crash.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use tokio_util::sync::CancellationToken;

use super::published::is_published_folder;
use super::{Files, PathError, Root, or_dot};
use crate::task::hidden::{HiddenFolder, is_hidden_name, remove_leftover, sync_names};
use crate::task::reserved::ReservedOutput;
use crate::task::{OutputFile, OutputKind, Paths, TaskId, TaskInfo};

impl Files {
    /// Checks the output path of a submission and returns its canonical form. `input` is the
    /// canonical form of the input path.
    ///
    /// # Errors
    /// If the path is out of bounds, one of the server's files, or the input; if something is there that
    /// the output may not replace; for a folder, if the input, a root or one of the server's files is in it.
    pub(crate) fn check_output(
        &self,
        path: &str,
        kind: OutputKind,
        input: Option<&Path>,
    ) -> Result<PathBuf, PathError> {
        let (root, relative) = self.locate(path)?;
        let (parent, name) = split_output(&relative, path, kind)?;
        if relative.iter().any(is_hidden_name) {
            return Err(PathError::HiddenName(path.to_owned()));
        }
        // Publishing replaces a link rather than following it.
        let entry = self.real_path(root, parent, path)?.join(name);
        let target = self.real_path(root, &relative, path)?;
        let is_own = |path: &Path| self.is_state_path(path) || self.is_program(path);
        if is_own(&entry) || is_own(&target) {
            return Err(PathError::StateFile(path.to_owned()));
        }
        if kind == OutputKind::Folder {
            let roots = self.roots.iter().map(|root| &root.canonical);
            let inside = roots.chain(&self.state_files).find(|inside| inside.starts_with(&entry));
            if let Some(inside) = inside {
                let inside = inside.display().to_string();
                return Err(PathError::Holds { path: path.to_owned(), inside });
            }
        }
        self.check_target(&root.dir, &relative, kind, path)?;
        match input {
            Some(input) if input == entry || input == target => {
                Err(PathError::OutputIsInput(path.to_owned()))
            }
            Some(input) if kind == OutputKind::Folder && input.starts_with(&entry) => {
                let inside = input.display().to_string();
                Err(PathError::Holds { path: path.to_owned(), inside })
            }
            _ => Ok(entry),
        }
    }

    /// Creates an output in a hidden folder beside its path, and the folders on the way to it. Writes to
    /// it fail once `token` is cancelled.
    ///
    /// # Errors
    /// If the path is out of bounds, a folder or one of the server's files, or on an I/O error.
    pub(crate) fn create_output(
        &self,
        path: &str,
        id: TaskId,
        epoch: i64,
        token: CancellationToken,
    ) -> Result<OutputFile, PathError> {
        let (_, _, hidden) = self.hide(path, OutputKind::File, id, epoch)?;
        OutputFile::create(hidden, path.to_owned(), token)
            .map_err(|error| self.explain(error, path, "create"))
    }

    /// Like [`create_output`](Self::create_output), for a program that writes the output by itself. Also
    /// returns the absolute path for that.
    pub(crate) fn reserve_output(
        &self,
        path: &str,
        paths: Paths,
        info: &TaskInfo,
        epoch: i64,
    ) -> Result<(ReservedOutput, PathBuf), PathError> {
        let (root, relative, hidden) = self.hide(path, paths.output_kind, info.task_id, epoch)?;
        let (parent, name) = split_output(&relative, path, paths.output_kind)?;
        let place = self.real_path(root, parent, path)?.join(hidden.name()).join(name);
        let reserved = ReservedOutput::new(hidden, path, paths, info)
            .map_err(|error| self.explain(error, path, "create"))?;
        Ok((reserved, place))
    }

    /// Creates the hidden folder of an output, and the folders on the way to it.
    fn hide(
        &self,
        path: &str,
        kind: OutputKind,
        id: TaskId,
        epoch: i64,
    ) -> Result<(&Root, PathBuf, HiddenFolder), PathError> {
        let explain = |error| self.explain(error, path, "create");
        let (root, relative) = self.locate(path)?;
        let (parent, name) = split_output(&relative, path, kind)?;
        if !parent.as_os_str().is_empty() {
            root.dir.create_dir_all(parent).map_err(explain)?;
            sync_ancestors(&root.dir, parent).map_err(explain)?;
        }
        let folder = root.dir.open_dir(or_dot(parent)).map_err(explain)?;
        self.check_location(&folder, path)?;
        self.check_target(&folder, Path::new(name), kind, path)?;
        let hidden = HiddenFolder::create(folder, name.to_owned(), id, epoch).map_err(explain)?;
        Ok((root, relative, hidden))
    }

    /// Checks that an output may replace what is at its path.
    fn check_target(
        &self,
        folder: &Dir,
        target: &Path,
        kind: OutputKind,
        path: &str,
    ) -> Result<(), PathError> {
        let Ok(found) = folder.symlink_metadata(target) else { return Ok(()) };
        match kind {
            OutputKind::File => self.check_regular(&found, path),
            OutputKind::Folder if !found.is_dir() => Err(PathError::NotAFolder(path.to_owned())),
            OutputKind::Folder => {
                let is_replaceable = folder.open_dir(target).and_then(|target| {
                    Ok(is_published_folder(&target)? || target.entries()?.next().is_none())
                });
                match is_replaceable {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(PathError::ForeignFolder(path.to_owned())),
                    Err(error) => Err(self.explain(error, path, "open")),
                }
            }
        }
    }

    /// Checks that an output of this size could be created now, and leaves nothing behind.
    ///
    /// # Errors
    /// As for [`create_output`](Self::create_output), or if the disk is full.
    pub(crate) fn try_output(
        &self,
        path: &str,
        kind: OutputKind,
        bytes: u64,
    ) -> Result<(), PathError> {
        let explain = |error| self.explain(error, path, "create");
        let (root, relative) = self.locate(path)?;
        let (_, name) = split_output(&relative, path, kind)?;
        let mut folders = relative.ancestors().skip(1);
        let folder = folders.find_map(|folder| match root.dir.open_dir(or_dot(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened),
        });
        let folder = folder.unwrap_or_else(|| root.dir.try_clone()).map_err(explain)?;
        let file = HiddenFolder::create(folder, name.to_owned(), TaskId::new(), 0)
            .and_then(|hidden| hidden.create_file())
            .map_err(explain)?;
        let disk = rustix::fs::fstatvfs(&file).map_err(|error| explain(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < bytes {
            return Err(PathError::DiskFull { path: path.to_owned(), free, bytes });
        }
        Ok(())
    }

    /// Removes the unfinished output that an attempt left in a crash. Returns whether there was one.
    pub(crate) fn remove_partial(&self, path: &str, id: TaskId, epoch: i64) -> bool {
        let Ok((root, relative)) = self.locate(path) else { return false };
        let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else {
            return false;
        };
        let parent = root.dir.open_dir(or_dot(parent));
        parent.is_ok_and(|parent| remove_leftover(&parent, name, id, epoch))
    }
}

/// Splits the path of an output into its folder and its name.
fn split_output<'a>(
    relative: &'a Path,
    path: &str,
    kind: OutputKind,
) -> Result<(&'a Path, &'a OsStr), PathError> {
    match (relative.parent(), relative.file_name(), kind) {
        (_, _, OutputKind::File) if path.ends_with('/') => Err(PathError::Folder(path.to_owned())),
        (Some(parent), Some(name), _) => Ok((parent, name)),
        (_, _, OutputKind::File) => Err(PathError::Folder(path.to_owned())),
        (_, _, OutputKind::Folder) => {
            Err(PathError::Holds { path: path.to_owned(), inside: path.to_owned() })
        }
    }
}

/// Syncs all folders above this one: an attempt that crashed may have created any of them.
fn sync_ancestors(root: &Dir, folder: &Path) -> io::Result<()> {
    for above in folder.ancestors().skip(1) {
        sync_names(&root.open_dir(or_dot(above))?)?;
    }
    Ok(())
}
