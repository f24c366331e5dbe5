//! Output files: written under a temporary name, renamed once complete.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::sync::Arc;

use cap_std::fs::Dir;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::TaskId;

/// Size of the write buffer.
const BUFFER_BYTES: usize = 256 * 1024;

/// Output file of a task. It gets its name after the task has returned `Ok`.
///
/// Writes are buffered. All clones write to the same file.
#[derive(Clone, Debug)]
pub struct OutputFile(Arc<Mutex<Partial>>);

#[derive(Debug)]
struct Partial {
    writer: BufWriter<File>,
    folder: Dir,
    /// Temporary name; `None` once the file is renamed or removed.
    partial: Option<String>,
    name: OsString,
    /// The path as sent by the client, for errors.
    path: String,
    /// Cancelled when the task is asked to stop.
    token: CancellationToken,
}

/// Temporary name of the output of an attempt.
pub(super) fn partial_name(id: TaskId, epoch: i64) -> String {
    format!(".{id}.{epoch}.part")
}

/// Returns whether an output of this name could collide with a temporary one.
pub(super) fn is_partial_name(name: &OsStr) -> bool {
    let stem = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".part"));
    stem.and_then(|stem| stem.split_once('.')).is_some_and(|(id, _)| id.parse::<TaskId>().is_ok())
}

impl OutputFile {
    /// `file` is the file `partial` in `folder`, to be renamed to `name`. Errors call it `path`, as
    /// the client does. Writes fail once `token` is cancelled.
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

    /// Flushes the buffer and waits until the data is on disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut partial = self.0.lock();
        partial.writer.flush()?;
        partial.writer.get_ref().sync_all()
    }

    /// Renames the file to its final name, replacing any other, and waits until that is on disk.
    pub(crate) fn publish(&self) -> io::Result<()> {
        let mut file = self.0.lock();
        let Some(partial) = file.partial.take() else { return Ok(()) };
        if let Err(error) = file.folder.rename(&partial, &file.folder, &file.name) {
            file.partial = Some(partial);
            return Err(error);
        }
        // `folder` may be an O_PATH handle, which cannot be synced.
        file.folder.open(".")?.into_std().sync_all()
    }

    /// Removes the file now, even if an abandoned thread still writes to it.
    pub(crate) fn discard(&self) {
        self.0.lock().remove();
    }

    /// Runs one write operation, unless the task was asked to stop: the only check in some code.
    /// Errors name the file, because tasks pass them on unchanged.
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
            tracing::warn!(%error, file = partial, "cannot remove an unfinished output");
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.remove();
    }
}
