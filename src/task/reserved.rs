//! Outputs that programs write.

use std::io;

use parking_lot::Mutex;
use rustix::fs::FileType;
use serde_json::json;

use super::hidden::HiddenFolder;
use super::{OutputKind, PathUse, Paths, TaskInfo};

/// Place of an output that a program writes. It is checked once the program has ended.
#[derive(Debug)]
pub(crate) struct ReservedOutput {
    /// The path as sent by the client, for errors.
    path: String,
    paths: Paths,
    /// Content of the marker of a folder.
    marker: String,
    place: Mutex<Place>,
}

#[derive(Debug)]
struct Place {
    hidden: HiddenFolder,
    /// Whether there is an output to publish. Written by `sync`, read by `publish`.
    is_written: bool,
}

impl ReservedOutput {
    pub(super) fn new(
        hidden: HiddenFolder,
        path: &str,
        paths: Paths,
        info: &TaskInfo,
    ) -> io::Result<Self> {
        if paths.output_kind == OutputKind::Folder {
            hidden.create_folder()?;
        }
        let marker = json!({ "task_id": info.task_id, "task_type": info.task_type }).to_string();
        let place = Mutex::new(Place { hidden, is_written: false });
        Ok(Self { path: path.to_owned(), paths, marker, place })
    }

    /// Checks what the program has written, and waits until it is on disk.
    pub(super) fn sync(&self) -> Result<(), String> {
        let mut place = self.place.lock();
        let hidden = &place.hidden;
        let failed = |error| self.failed(&error);
        let is_required = self.paths.output == PathUse::Required;
        let is_written = match (hidden.find().map_err(failed)?, self.paths.output_kind) {
            (None, _) if is_required => {
                return Err(format!("the program wrote no output to `{}`", self.path));
            }
            (None, _) => false,
            (Some(FileType::RegularFile), OutputKind::File) => {
                hidden.sync_file().map_err(failed)?;
                true
            }
            (Some(FileType::Directory), OutputKind::Folder)
                if !is_required && hidden.is_empty_folder().map_err(failed)? =>
            {
                false
            }
            (Some(FileType::Directory), OutputKind::Folder) => {
                hidden.sync_folder(&self.marker).map_err(failed)?;
                true
            }
            (Some(found), expected) => return Err(self.unexpected(found, expected)),
        };
        place.is_written = is_written;
        Ok(())
    }

    /// Moves the output to its path, if there is one.
    pub(super) fn publish(&self) -> Result<(), String> {
        let place = &mut *self.place.lock();
        let published = match self.paths.output_kind {
            _ if !place.is_written => {
                place.hidden.remove();
                Ok(())
            }
            OutputKind::File => place.hidden.publish_file(),
            OutputKind::Folder => place.hidden.publish_folder(),
        };
        published.map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty => {
                let path = &self.path;
                format!(
                    "cannot replace `{path}`: no task has made that folder, and it is not empty"
                )
            }
            _ => self.failed(&error),
        })
    }

    pub(super) fn discard(&self) {
        self.place.lock().hidden.remove();
    }

    fn failed(&self, error: &io::Error) -> String {
        format!("cannot write `{}`: {error}", self.path)
    }

    fn unexpected(&self, found: FileType, expected: OutputKind) -> String {
        let found = match found {
            FileType::Symlink => "a symbolic link",
            FileType::Directory => "a folder",
            FileType::RegularFile => "a file",
            _ => "a special file",
        };
        let expected = match expected {
            OutputKind::File => "a file",
            OutputKind::Folder => "a folder",
        };
        format!("the program left {found} as its output `{}`, expected {expected}", self.path)
    }
}
