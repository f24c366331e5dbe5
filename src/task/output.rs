//! Output files: written beside their place, put there whole.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::sync::Arc;

use cap_std::fs::Dir;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::TaskId;

/// Output is handed to the file system in pieces of this size.
const BUFFER_BYTES: usize = 256 * 1024;

/// A file that a task writes. It appears under its name once the task has returned `Ok`.
///
/// Writes are buffered, and clones write to the same file.
#[derive(Clone, Debug)]
pub struct OutputFile(Arc<Mutex<Partial>>);

#[derive(Debug)]
struct Partial {
    writer: BufWriter<File>,
    folder: Dir,
    /// The name for now; `None` once the file has its own.
    partial: Option<String>,
    name: OsString,
    /// As the client wrote it, for errors.
    path: String,
    /// Tells the task to stop.
    token: CancellationToken,
}

/// What an attempt's output is called until it is whole.
pub(super) fn partial_name(id: TaskId, epoch: i64) -> String {
    format!(".{id}.{epoch}.part")
}

/// Whether an output of this name could get in the way of one that is not whole yet.
pub(super) fn is_partial_name(name: &OsStr) -> bool {
    let stem = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".part"));
    stem.and_then(|stem| stem.split_once('.')).is_some_and(|(id, _)| id.parse::<TaskId>().is_ok())
}

impl OutputFile {
    /// `file` is open under the name `partial` in `folder`, where it is to be called `name`; the
    /// client calls it `path`. Writing fails once `token` is cancelled.
    pub(super) fn new(
        file: File,
        folder: Dir,
        partial: String,
        name: OsString,
        path: String,
        token: CancellationToken,
    ) -> Self {
        let writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        let partial = Some(partial);
        Self(Arc::new(Mutex::new(Partial { writer, folder, partial, name, path, token })))
    }

    /// Writes out what is buffered and waits until the disk has it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut partial = self.0.lock();
        partial.writer.flush()?;
        partial.writer.get_ref().sync_all()
    }

    /// Gives the file its name, in place of whatever had it, and waits until the disk knows.
    pub(crate) fn publish(&self) -> io::Result<()> {
        let mut file = self.0.lock();
        let Some(partial) = file.partial.take() else { return Ok(()) };
        if let Err(error) = file.folder.rename(&partial, &file.folder, &file.name) {
            file.partial = Some(partial);
            return Err(error);
        }
        // The handle itself may be one that only leads on to other files, so open a readable one.
        file.folder.open(".")?.into_std().sync_all()
    }

    /// Removes the file now, even if a thread that was given up still writes to it.
    pub(crate) fn discard(&self) {
        self.0.lock().remove();
    }

    /// Takes a step of writing, unless the task should stop: code that has no other check ends here.
    /// Tasks pass errors on as they are, so they have to say of what file they are.
    fn named<T>(&self, step: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>) -> io::Result<T> {
        let partial = &mut *self.0.lock();
        if partial.token.is_cancelled() {
            return Err(io::Error::other(format!("stopped writing `{}`", partial.path)));
        }
        step(&mut partial.writer).map_err(|error| {
            let text = format!("cannot write `{}`: {error}", partial.path);
            io::Error::new(error.kind(), text)
        })
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.named(|writer| writer.write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.named(|writer| writer.write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.named(BufWriter::flush)
    }
}

impl Seek for OutputFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.named(|writer| writer.seek(position))
    }
}

impl Partial {
    fn remove(&mut self) {
        if let Some(partial) = self.partial.take()
            && let Err(error) = self.folder.remove_file(&partial)
        {
            tracing::warn!(%error, file = partial, "could not remove an unfinished output");
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.remove();
    }
}
