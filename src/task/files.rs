//! Files that clients name: found and opened only below the allowed folders.
//!
//! Every path is resolved through a directory handle of one of the roots (`--root`), so that
//! neither `..` nor a symbolic link, swapped at whatever moment, leads out of them.

mod absolute;
mod machine;
mod path_error;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cap_fs_ext::{MetadataExt, OpenOptionsSyncExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, OpenOptions};
use tokio_util::sync::CancellationToken;

use self::absolute::{canonical_target, follow_links, normalize};
pub(crate) use self::machine::machine;
pub use self::path_error::PathError;
use super::output::{is_partial_name, partial_name};
use super::{OutputFile, TaskId};

/// The folders that tasks may read and write, and the files in them that they may not touch.
#[derive(Debug)]
pub struct Files {
    roots: Vec<Root>,
    state_files: Vec<PathBuf>,
}

#[derive(Debug)]
struct Root {
    /// As the user named it, made absolute.
    given: PathBuf,
    /// Free of symbolic links.
    canonical: PathBuf,
    dir: Dir,
}

/// A root that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}` as a root", path.display())]
pub struct FilesError {
    path: PathBuf,
    source: io::Error,
}

/// A path that was found to lie below a root.
#[derive(Debug)]
struct Located {
    root: usize,
    relative: PathBuf,
}

impl Files {
    /// Opens the roots. `state_files` are the server's own files, existing or not.
    ///
    /// # Errors
    /// If a root is not a folder that can be opened.
    pub fn open(roots: &[PathBuf], state_files: &[PathBuf]) -> Result<Self, FilesError> {
        let open = |path: &PathBuf| {
            let given = normalize(&std::path::absolute(path)?);
            let canonical = path.canonicalize()?;
            let dir = Dir::open_ambient_dir(&canonical, ambient_authority())?;
            Ok(Root { given, canonical, dir })
        };
        let roots = roots
            .iter()
            .map(|path| open(path).map_err(|source| FilesError { path: path.clone(), source }))
            .collect::<Result<_, _>>()?;
        let state_files = state_files.iter().filter_map(|path| canonical_target(path)).collect();
        Ok(Self { roots, state_files })
    }

    /// The roots without symbolic links, the first one first: relative paths start there.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(|root| root.canonical.as_path())
    }

    /// Checks the input path of a submission, as far as that can be said before the task runs: an
    /// absent input is no fault yet. Returns a path that is the same for all spellings of it.
    ///
    /// # Errors
    /// If it is out of bounds or one of the server's files.
    pub(crate) fn check_input(&self, path: &str) -> Result<PathBuf, PathError> {
        let located = self.locate(path)?;
        let real = self.real_path(&located, path, Follow::Yes)?;
        if self.state_files.contains(&real) {
            return Err(PathError::StateFile(path.to_owned()));
        }
        Ok(real)
    }

    /// The counterpart of [`check_input`](Self::check_input) for the output; `input` is what that
    /// returned.
    ///
    /// # Errors
    /// If it is out of bounds, a folder, one of the server's files, or the input.
    pub(crate) fn check_output(
        &self,
        path: &str,
        input: Option<&Path>,
    ) -> Result<PathBuf, PathError> {
        let located = self.locate(path)?;
        if located.relative.as_os_str().is_empty() || path.ends_with('/') {
            return Err(PathError::Folder(path.to_owned()));
        }
        if located.relative.file_name().is_some_and(is_partial_name) {
            return Err(PathError::PartialName(path.to_owned()));
        }
        let entry = self.real_path(&located, path, Follow::No)?;
        let target = self.real_path(&located, path, Follow::Yes)?;
        if self.state_files.contains(&entry) || self.state_files.contains(&target) {
            return Err(PathError::StateFile(path.to_owned()));
        }
        if let Ok(found) = self.roots[located.root].dir.symlink_metadata(&located.relative) {
            self.check_target(&found, path)?;
        }
        if input.is_some_and(|input| input == entry || input == target) {
            return Err(PathError::OutputIsInput(path.to_owned()));
        }
        Ok(entry)
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// If it is out of bounds, absent, unreadable, or no regular file.
    pub(crate) fn open_input(&self, path: &str) -> Result<File, PathError> {
        let io_error = |source| PathError::Io { action: "open", path: path.to_owned(), source };
        let located = self.locate(path)?;
        let mut options = OpenOptions::new();
        // Without O_NONBLOCK the opening of a pipe would wait for its writer.
        options.read(true).nonblock(true);
        let name = file_name_or_dot(&located.relative);
        let dir = &self.roots[located.root].dir;
        // Before it is opened: SQLite loses its locks when the process closes any handle of the database.
        if dir.metadata(name).is_ok_and(|found| self.is_state_file(&found)) {
            return Err(PathError::StateFile(path.to_owned()));
        }
        let file =
            dir.open_with(name, &options).map_err(|error| self.explain(error, path, "open"))?;
        let found = file.metadata().map_err(io_error)?;
        if found.is_dir() {
            return Err(PathError::Folder(path.to_owned()));
        }
        if !found.is_file() {
            return Err(PathError::NotRegular(path.to_owned()));
        }
        if self.is_state_file(&found) {
            return Err(PathError::StateFile(path.to_owned()));
        }
        Ok(file.into_std())
    }

    /// Creates the file that becomes the output, beside its place, and the folders that lead there.
    /// Writing to it fails once `token` is cancelled.
    ///
    /// # Errors
    /// If it is out of bounds, is a folder or one of the server's files, or cannot be created.
    pub(crate) fn create_output(
        &self,
        path: &str,
        id: TaskId,
        epoch: i64,
        token: CancellationToken,
    ) -> Result<OutputFile, PathError> {
        let explain = |error| self.explain(error, path, "create");
        let located = self.locate(path)?;
        let root = &self.roots[located.root].dir;
        let Some(name) = located.relative.file_name().filter(|_| !path.ends_with('/')) else {
            return Err(PathError::Folder(path.to_owned()));
        };
        let folder = match located.relative.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                root.create_dir_all(parent).map_err(explain)?;
                sync_above(root, parent).map_err(explain)?;
                root.open_dir(parent).map_err(explain)?
            }
            _ => root.try_clone().map_err(explain)?,
        };
        if let Ok(found) = folder.symlink_metadata(name) {
            self.check_target(&found, path)?;
        }
        let partial = partial_name(id, epoch);
        let file = create_new(&folder, &partial).map_err(explain)?;
        Ok(OutputFile::new(file, folder, partial, name.to_owned(), path.to_owned(), token))
    }

    /// Whether an output could be created here now, with room for that many bytes. Creates no
    /// folders, and leaves nothing behind.
    ///
    /// # Errors
    /// What [`create_output`](Self::create_output) would say, or that the disk is full.
    pub(crate) fn try_output(&self, path: &str, bytes: u64) -> Result<(), PathError> {
        let explain = |error| self.explain(error, path, "create");
        let located = self.locate(path)?;
        let root = &self.roots[located.root].dir;
        let mut folders = located.relative.ancestors().skip(1);
        let folder = folders.find_map(|folder| match root.open_dir(file_name_or_dot(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened),
        });
        let folder = folder.unwrap_or_else(|| root.try_clone()).map_err(explain)?;
        let partial = partial_name(TaskId::new(), 0);
        let file = create_new(&folder, &partial).map_err(explain)?;
        folder.remove_file(&partial).map_err(explain)?;
        let disk = rustix::fs::fstatvfs(&file).map_err(|error| explain(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < bytes {
            return Err(PathError::DiskFull { path: path.to_owned(), free, bytes });
        }
        Ok(())
    }

    /// Removes what a crash left of an attempt's output. Returns whether there was anything.
    pub(crate) fn remove_partial(&self, path: &str, id: TaskId, epoch: i64) -> bool {
        self.locate(path).is_ok_and(|located| {
            let partial = located.relative.with_file_name(partial_name(id, epoch));
            self.roots[located.root].dir.remove_file(partial).is_ok()
        })
    }

    /// Finds the root that a path lies below, by its text alone.
    fn locate(&self, path: &str) -> Result<Located, PathError> {
        if path.is_empty() {
            return Err(PathError::Malformed("empty"));
        }
        if path.contains('\0') {
            return Err(PathError::Malformed("not one that a file can have: it contains NUL"));
        }
        if path.starts_with('~') {
            return Err(PathError::Home(path.to_owned()));
        }
        // A relative path means the first root; joining an absolute one replaces it.
        let absolute = normalize(&self.roots[0].canonical.join(path));
        for (root, candidate) in self.roots.iter().enumerate() {
            for base in [&candidate.canonical, &candidate.given] {
                if let Ok(relative) = absolute.strip_prefix(base) {
                    return Ok(Located { root, relative: relative.to_owned() });
                }
            }
        }
        Err(self.outside(path, &absolute))
    }

    fn outside(&self, path: &str, absolute: &Path) -> PathError {
        let target = follow_links(absolute);
        let folder = target.parent().unwrap_or(&target);
        PathError::Outside {
            path: path.to_owned(),
            found: match target == absolute {
                true => "is outside".to_owned(),
                false => format!("leads to `{}`, outside", target.display()),
            },
            roots: self.roots.iter().map(|root| root.given.display().to_string()).collect(),
            suggestion: folder.display().to_string(),
        }
    }

    /// The absolute path without symbolic links, as far as it exists.
    fn real_path(
        &self,
        located: &Located,
        path: &str,
        follow: Follow,
    ) -> Result<PathBuf, PathError> {
        let root = &self.roots[located.root];
        let mut existing = located.relative.as_path();
        let mut rest = Vec::new();
        if matches!(follow, Follow::No)
            && let (Some(parent), Some(name)) = (existing.parent(), existing.file_name())
        {
            rest.push(name);
            existing = parent;
        }
        loop {
            if existing.as_os_str().is_empty() {
                break;
            }
            match root.dir.canonicalize(existing) {
                Ok(real) => {
                    // A link to the root itself is found as ".".
                    let base = normalize(&root.canonical.join(real));
                    return Ok(rest.iter().rev().fold(base, |path, name| path.join(name)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    rest.extend(existing.file_name());
                    existing = existing.parent().unwrap_or(Path::new(""));
                }
                // A file where a folder should be is met again when the task runs.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    return Ok(root.canonical.join(&located.relative));
                }
                Err(error) => return Err(self.explain(error, path, "open")),
            }
        }
        Ok(rest.iter().rev().fold(root.canonical.clone(), |path, name| path.join(name)))
    }

    /// Refuses to put an output in place of what is already there, if that is no ordinary file.
    fn check_target(&self, found: &Metadata, path: &str) -> Result<(), PathError> {
        if found.is_dir() {
            return Err(PathError::Folder(path.to_owned()));
        }
        if !found.is_file() && !found.is_symlink() {
            return Err(PathError::NotRegular(path.to_owned()));
        }
        if self.is_state_file(found) {
            return Err(PathError::StateFile(path.to_owned()));
        }
        Ok(())
    }

    /// Whether this is one of the server's files, under whatever name.
    fn is_state_file(&self, found: &Metadata) -> bool {
        self.state_files.iter().any(|path| {
            std::fs::metadata(path).is_ok_and(|state| {
                let state = Metadata::from_just_metadata(state);
                (state.dev(), state.ino()) == (found.dev(), found.ino())
            })
        })
    }

    fn explain(&self, error: io::Error, path: &str, action: &'static str) -> PathError {
        // cap-std reports a path that leads out of the root as an error of its own making.
        if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
            return self.outside(path, &normalize(&self.roots[0].canonical.join(path)));
        }
        PathError::Io { action, path: path.to_owned(), source: error }
    }
}

#[derive(Clone, Copy)]
enum Follow {
    Yes,
    No,
}

/// Waits until the disk knows a folder by its name, and so all folders above it. They may be there only
/// because an attempt that a crash interrupted has made them, so all are synced.
fn sync_above(root: &Dir, folder: &Path) -> io::Result<()> {
    for above in folder.ancestors().skip(1) {
        // The handle itself may be one that only leads on to other files, so open a readable one.
        root.open_dir(file_name_or_dot(above))?.open(".")?.into_std().sync_all()?;
    }
    Ok(())
}

fn create_new(folder: &Dir, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    Ok(folder.open_with(name, &options)?.into_std())
}

fn file_name_or_dot(relative: &Path) -> &Path {
    if relative.as_os_str().is_empty() { Path::new(".") } else { relative }
}

#[cfg(test)]
mod tests;
