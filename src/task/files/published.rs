//! Published outputs: files, and folders with the marker of the task that wrote them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path};

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::fs::{Dir, OpenOptions};
use serde::{Deserialize, Serialize};

use super::{Files, PathError};
use crate::task::TaskId;

/// File in a published folder that names the task. Lists leave it out.
pub(in crate::task) const MARKER: &str = ".task-server.json";
const LONGEST_MARKER: u64 = 4096;

/// Maximum number of files in a list.
const MOST_FILES: usize = 1000;
/// Folders nested deeper are not listed: each level takes a handle.
const MOST_LEVELS: usize = 64;
/// Maximum number of folders that are read for one list.
const MOST_FOLDERS: usize = 10_000;

/// In the order of paths, this follows all others in a folder.
const LAST: char = '\u{10ffff}';

/// A published output, or a part of it.
#[derive(Debug)]
pub(crate) enum Published {
    File(File),
    /// Files of a folder, in the order of their paths.
    Folder {
        files: Vec<ListedFile>,
        /// Path after which the next list begins, unless this is the last one.
        next: Option<String>,
    },
}

/// A file in a published folder.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ListedFile {
    /// Path within the folder.
    path: String,
    /// Size in bytes.
    bytes: u64,
}

impl Files {
    /// Opens the output of a task, or lists its files `after` a path if it is a folder.
    ///
    /// # Errors
    /// If the path is out of bounds or cannot be read, or is a folder that no task has published.
    pub(crate) fn open_published(
        &self,
        path: &str,
        after: Option<&str>,
    ) -> Result<Published, PathError> {
        match self.open_input(path) {
            Ok(file) => Ok(Published::File(file)),
            Err(PathError::Folder(_)) => {
                let folder = self.open_published_folder(path)?;
                let mut list = List { after, files: Vec::new(), next: None, folders: 0 };
                list.read(&folder, "", 0).map_err(|error| self.explain(error, path, "list"))?;
                Ok(Published::Folder { files: list.files, next: list.next })
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a file of a published folder. Links in it may lead to other files of the folder only.
    ///
    /// # Errors
    /// As for [`open_published`](Self::open_published), or if `inner` is no regular file in the folder.
    pub(crate) fn open_published_file(&self, path: &str, inner: &str) -> Result<File, PathError> {
        let is_plain = Path::new(inner).components().all(|it| matches!(it, Component::Normal(_)));
        if inner.is_empty() || inner.contains('\0') || !is_plain {
            return Err(PathError::Malformed("a path inside the output, without `.` and `..`"));
        }
        let whole = format!("{}/{inner}", path.trim_end_matches('/'));
        let folder = self.open_published_folder(path)?;
        let mut options = OpenOptions::new();
        // Without O_NONBLOCK, opening a pipe would wait for a writer.
        options.read(true).nonblock(true);
        let explain = |error| self.explain(error, &whole, "open");
        // Checked before opening, as in `open_input`.
        self.check_regular(&folder.metadata(inner).map_err(explain)?, &whole)?;
        let file = folder.open_with(inner, &options).map_err(explain)?;
        self.check_regular(&file.metadata().map_err(explain)?, &whole)?;
        Ok(file.into_std())
    }

    fn open_published_folder(&self, path: &str) -> Result<Dir, PathError> {
        let folder = self.open_folder(path)?;
        match is_published_folder(&folder) {
            Ok(true) => Ok(folder),
            Ok(false) => Err(PathError::Folder(path.to_owned())),
            Err(error) => Err(self.explain(error, path, "open")),
        }
    }
}

/// Returns whether a task has published this folder.
pub(in crate::task) fn is_published_folder(folder: &Dir) -> io::Result<bool> {
    #[derive(Deserialize)]
    struct Marker {
        #[serde(rename = "task_id")]
        _task_id: TaskId,
    }
    let mut options = OpenOptions::new();
    options.read(true).nonblock(true).follow(FollowSymlinks::No);
    let file = match folder.open_with(MARKER, &options) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let mut text = Vec::new();
    file.take(LONGEST_MARKER).read_to_end(&mut text)?;
    Ok(serde_json::from_slice::<Marker>(&text).is_ok())
}

/// A list that is being made.
struct List<'a> {
    after: Option<&'a str>,
    files: Vec<ListedFile>,
    next: Option<String>,
    folders: usize,
}

impl List<'_> {
    /// Adds the files of a folder, whose path ends in a slash unless it is empty. Links are left out.
    fn read(&mut self, folder: &Dir, path: &str, level: usize) -> io::Result<()> {
        self.folders += 1;
        let (mut entries, mut is_cut) = (BTreeMap::new(), false);
        for entry in folder.entries()? {
            let entry = entry?;
            let (Ok(name), kind) = (entry.file_name().into_string(), entry.file_type()?) else {
                continue;
            };
            // With the slash, folders are where their files are in the order of all paths.
            let key = format!("{path}{name}{}", if kind.is_dir() { "/" } else { "" });
            if (kind.is_dir() || kind.is_file()) && self.is_wanted(&key) && key != MARKER {
                entries.insert(key, (name, entry));
            }
            if entries.len() > MOST_FILES + 1 {
                entries.pop_last();
                is_cut = true;
            }
        }
        let last = entries.last_key_value().map(|(last, _)| format!("{last}{LAST}"));
        for (key, (name, entry)) in entries {
            if self.next.is_some() {
                break;
            }
            if !key.ends_with('/') {
                self.add(key, entry.metadata()?.len());
            } else if self.folders == MOST_FOLDERS {
                self.next = Some(key);
            } else if level < MOST_LEVELS {
                self.read(&folder.open_dir(name)?, &key, level + 1)?;
            }
        }
        if is_cut && self.next.is_none() {
            self.next = last;
        }
        Ok(())
    }

    /// Whether this file, or files of this folder, are to be listed.
    fn is_wanted(&self, key: &str) -> bool {
        let inside = |after: &str| key.ends_with('/') && after.starts_with(key);
        self.after.is_none_or(|after| key > after || inside(after))
    }

    fn add(&mut self, path: String, bytes: u64) {
        match self.files.last() {
            Some(last) if self.files.len() == MOST_FILES => self.next = Some(last.path.clone()),
            _ => self.files.push(ListedFile { path, bytes }),
        }
    }
}
