//! Unpublished outputs, and the file that a task writes.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::hidden::HiddenFolder;
use super::reserved::ReservedOutput;

/// Size of the write buffer.
const BUFFER_BYTES: usize = 256 * 1024;

/// The output of an attempt, from its creation until it is published or discarded.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// Written by the task itself.
    File(OutputFile),
    /// Written by a program.
    Reserved(Arc<ReservedOutput>),
}

/// Errors are sentences that name the client's path.
impl Output {
    /// Checks that the output is as expected, and waits until its content is on disk.
    pub(crate) fn sync(&self) -> Result<(), String> {
        match self {
            Self::File(file) => file.explained(Partial::sync),
            Self::Reserved(reserved) => reserved.sync(),
        }
    }

    /// Moves the output to its path, replacing an earlier one, and waits until that is on disk.
    pub(crate) fn publish(&self) -> Result<(), String> {
        match self {
            Self::File(file) => file.explained(|partial| partial.hidden.publish_file()),
            Self::Reserved(reserved) => reserved.publish(),
        }
    }

    /// Removes the output now, even if an abandoned thread still writes to it.
    pub(crate) fn discard(&self) {
        match self {
            Self::File(file) => file.0.lock().hidden.remove(),
            Self::Reserved(reserved) => reserved.discard(),
        }
    }
}

/// Output file of a task. It appears at its path after the task has returned `Ok`.
///
/// Writes are buffered. All clones write to the same file.
#[derive(Clone, Debug)]
pub struct OutputFile(Arc<Mutex<Partial>>);

#[derive(Debug)]
struct Partial {
    writer: BufWriter<File>,
    hidden: HiddenFolder,
    /// The path as sent by the client, for errors.
    path: String,
    /// Cancelled when the task is asked to stop.
    token: CancellationToken,
}

impl OutputFile {
    /// Creates the file in `hidden`. Errors call it `path`, as the client does. Writes fail once `token` is
    /// cancelled.
    pub(super) fn create(
        hidden: HiddenFolder,
        path: String,
        token: CancellationToken,
    ) -> io::Result<Self> {
        let writer = BufWriter::with_capacity(BUFFER_BYTES, hidden.create_file()?);
        Ok(Self(Arc::new(Mutex::new(Partial { writer, hidden, path, token }))))
    }

    fn explained(&self, step: fn(&mut Partial) -> io::Result<()>) -> Result<(), String> {
        let partial = &mut *self.0.lock();
        step(partial).map_err(|error| format!("cannot write `{}`: {error}", partial.path))
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

impl Partial {
    fn sync(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.writer.get_ref().sync_all()
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
