//! Files named by clients, confined to the allowed folders.
//!
//! Every path is resolved through the directory handle of a root (`--root`), so that neither `..`
//! nor a symbolic link leads out, not even a link that is swapped in during an operation.

mod absolute;
mod machine;
mod outputs;
mod path_error;
mod published;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use cap_fs_ext::{MetadataExt, OpenOptionsSyncExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, OpenOptions};
use parking_lot::RwLock;

use self::absolute::{canonical_target, follow_links, joined, normalize, path_of};
pub(crate) use self::machine::machine;
pub use self::path_error::PathError;
pub(crate) use self::published::{ListedFile, Published};
pub(super) use self::published::{MARKER, is_published_folder};

/// The folders that tasks may use, except for the server's own files in them.
#[derive(Debug)]
pub struct Files {
    roots: Vec<Root>,
    state_files: Vec<PathBuf>,
    /// Programs and scripts that tasks run, and must not write to. They change with the task types.
    programs: RwLock<Vec<PathBuf>>,
}

#[derive(Debug)]
struct Root {
    /// The path as configured, made absolute.
    given: PathBuf,
    /// The path without symbolic links.
    canonical: PathBuf,
    dir: Dir,
}

/// Error of a root that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}` as a root", path.display())]
pub struct FilesError {
    path: PathBuf,
    source: io::Error,
}

impl Files {
    /// Opens the roots. `state_files` are the server's own files, and folders as a whole. They need not
    /// exist yet.
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
        Ok(Self { roots, state_files, programs: RwLock::default() })
    }

    /// Replaces the programs and scripts that no task may write to.
    pub(crate) fn protect(&self, programs: Vec<PathBuf>) {
        *self.programs.write() = programs;
    }

    /// The roots without symbolic links. Relative paths start at the first.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(|root| root.canonical.as_path())
    }

    /// Checks the input path of a submission and returns its canonical form. The input need not
    /// exist before the task runs.
    ///
    /// # Errors
    /// If the path is out of bounds or one of the server's files.
    pub(crate) fn check_input(&self, path: &str) -> Result<PathBuf, PathError> {
        let (root, relative) = self.locate(path)?;
        let real = self.real_path(root, &relative, path)?;
        if self.is_state_path(&real) {
            return Err(PathError::StateFile(path.to_owned()));
        }
        Ok(real)
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// If the path is out of bounds, or the file is absent, unreadable or irregular.
    pub(crate) fn open_input(&self, path: &str) -> Result<File, PathError> {
        let (root, relative) = self.locate(path)?;
        let name = or_dot(&relative);
        // Checked before opening: closing any handle of the database would drop SQLite's locks.
        if root.dir.metadata(name).is_ok_and(|found| self.is_state_file(&found)) {
            return Err(PathError::StateFile(path.to_owned()));
        }
        let mut options = OpenOptions::new();
        // Without O_NONBLOCK, opening a pipe would wait for a writer.
        options.read(true).nonblock(true);
        let file = root.dir.open_with(name, &options);
        let file = file.map_err(|error| self.explain(error, path, "open"))?;
        let found = file.metadata().map_err(|error| self.explain(error, path, "open"))?;
        self.check_regular(&found, path)?;
        self.check_location(&file, path)?;
        Ok(file.into_std())
    }

    /// Returns the canonical path of a file that can be opened as an input, or of a folder that can be
    /// read.
    ///
    /// # Errors
    /// As for [`open_input`](Self::open_input), but for folders.
    pub(crate) fn locate_input(&self, path: &str) -> Result<PathBuf, PathError> {
        match self.open_input(path) {
            Err(PathError::Folder(_)) => drop(self.open_folder(path)?),
            opened => drop(opened?),
        }
        let (root, relative) = self.locate(path)?;
        self.real_path(root, &relative, path)
    }

    /// Opens a folder.
    fn open_folder(&self, path: &str) -> Result<Dir, PathError> {
        let (root, relative) = self.locate(path)?;
        let folder = root.dir.open_dir(or_dot(&relative));
        let folder = folder.map_err(|error| self.explain(error, path, "open"))?;
        self.check_location(&folder, path)?;
        Ok(folder)
    }

    /// Splits a path into its root and the rest, by its text alone.
    fn locate(&self, path: &str) -> Result<(&Root, PathBuf), PathError> {
        if path.is_empty() {
            return Err(PathError::Malformed("a non-empty path"));
        }
        if path.contains('\0') {
            return Err(PathError::Malformed("a path without NUL"));
        }
        if path.starts_with('~') {
            return Err(PathError::Home(path.to_owned()));
        }
        let absolute = self.absolute(path);
        for root in &self.roots {
            for base in [&root.canonical, &root.given] {
                if let Ok(relative) = absolute.strip_prefix(base) {
                    return Ok((root, relative.to_owned()));
                }
            }
        }
        Err(self.outside(path))
    }

    /// Relative paths start at the first root; joining an absolute one replaces it.
    fn absolute(&self, path: &str) -> PathBuf {
        normalize(&self.roots[0].canonical.join(path))
    }

    fn outside(&self, path: &str) -> PathError {
        let absolute = self.absolute(path);
        let target = follow_links(&absolute);
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

    /// Canonical form of a path; follows its links as far as it exists.
    fn real_path(&self, root: &Root, relative: &Path, path: &str) -> Result<PathBuf, PathError> {
        for existing in relative.ancestors().take_while(|path| !path.as_os_str().is_empty()) {
            match root.dir.canonicalize(existing) {
                Ok(real) => {
                    let rest = relative.strip_prefix(existing).unwrap_or(Path::new(""));
                    // `real` may be ".".
                    return Ok(joined(normalize(&root.canonical.join(real)), rest));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // The task itself will report a file in place of a folder.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => break,
                Err(error) => return Err(self.explain(error, path, "open")),
            }
        }
        Ok(joined(root.canonical.clone(), relative))
    }

    /// Refuses folders, special files and the server's own files. Outputs may replace links.
    fn check_regular(&self, found: &Metadata, path: &str) -> Result<(), PathError> {
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

    /// Refuses what is in the server's own folders, even if a link was swapped in after the submission was
    /// checked.
    fn check_location(&self, opened: &impl AsRawFd, path: &str) -> Result<(), PathError> {
        match path_of(opened) {
            Some(real) if self.is_state_path(&real) => Err(PathError::StateFile(path.to_owned())),
            _ => Ok(()),
        }
    }

    /// Returns whether a canonical path is one of the server's files, or in one of its folders.
    fn is_state_path(&self, real: &Path) -> bool {
        self.state_files.iter().any(|state| real.starts_with(state))
    }

    /// Returns whether a canonical path is a program that tasks run.
    fn is_program(&self, real: &Path) -> bool {
        self.programs.read().iter().any(|program| program == real)
    }

    /// Returns whether this is one of the server's files, under any name.
    fn is_state_file(&self, found: &Metadata) -> bool {
        self.state_files.iter().any(|path| {
            std::fs::metadata(path).is_ok_and(|state| {
                let state = Metadata::from_just_metadata(state);
                (state.dev(), state.ino()) == (found.dev(), found.ino())
            })
        })
    }

    fn explain(&self, source: io::Error, path: &str, action: &'static str) -> PathError {
        // cap-std makes up an error, without a code, for a path that leads out of the root.
        if source.kind() == io::ErrorKind::PermissionDenied && source.raw_os_error().is_none() {
            return self.outside(path);
        }
        PathError::Io { action, path: path.to_owned(), source }
    }
}

/// Handles resolve "." but not "".
fn or_dot(relative: &Path) -> &Path {
    if relative.as_os_str().is_empty() { Path::new(".") } else { relative }
}

#[cfg(test)]
mod tests;
