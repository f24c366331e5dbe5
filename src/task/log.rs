//! The log of an attempt: what its code says, as lines with a time and a source.
//!
//! Lines are buffered in memory, and a thread of the server writes them to the file of the log. A log without
//! lines has no file.

mod file;
mod folder;
mod layer;
mod lines;
#[cfg(test)]
mod tests;
mod text;

use std::io;
use std::sync::Arc;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use self::file::LogFile;
pub(crate) use self::file::LogText;
pub(crate) use self::folder::{LogEntry, LogFolder};
pub(crate) use self::layer::attach;
pub use self::layer::task_logs;
pub use self::lines::LogSource;
use self::lines::Pending;
pub(crate) use self::text::tail_lines;
use super::{TaskId, Timestamp};

/// The log of one attempt. Cheap to clone; all clones belong to the same attempt.
#[derive(Clone, Debug)]
pub struct TaskLog(Arc<Shared>);

/// `lines` is filled by tasks. The thread of the folder, and readers that want the latest lines, move them to
/// the file: they lock `file` first and then `lines`, so the lines keep their order.
#[derive(Debug)]
struct Shared {
    folder: Arc<LogFolder>,
    id: TaskId,
    attempt: u32,
    lines: Mutex<Lines>,
    /// `None` until it is needed.
    file: Mutex<Option<Box<Appender>>>,
    /// Notified after each write, and when the log is closed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    /// `None` before the first line.
    pending: Option<Box<Pending>>,
    /// Whether the thread of the folder knows of the lines.
    announced: bool,
    /// Whether the attempt is over, so that further lines are ignored.
    closed: bool,
}

#[derive(Debug)]
struct Appender {
    file: LogFile,
    /// Number of bytes that could not be written since the last successful write.
    lost: u64,
    /// Whether anything was written.
    began: bool,
}

impl TaskLog {
    fn new(folder: Arc<LogFolder>, id: TaskId, attempt: u32) -> Self {
        Self(Arc::new(Shared {
            folder,
            id,
            attempt,
            lines: Mutex::default(),
            file: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// Adds a line with the current time, or several if `text` contains line feeds or is longer than 8 KiB.
    ///
    /// Never waits for the disk and never fails. Of a long log the first 256 KiB and the last megabyte are
    /// kept.
    pub fn line(&self, source: LogSource, text: impl AsRef<[u8]>) {
        let now = Timestamp::now();
        let mut lines = self.0.lines.lock();
        if lines.closed {
            return;
        }
        lines.pending.get_or_insert_default().add(now, source, text.as_ref());
        let announced = std::mem::replace(&mut lines.announced, true);
        drop(lines);
        if !announced {
            self.0.folder.has_lines(self.clone());
        }
    }

    /// Ends the log: further lines are ignored. Returns whether it has any lines, and so has to be
    /// [finished](Self::finish).
    pub(crate) fn close(&self) -> bool {
        let mut lines = self.0.lines.lock();
        lines.closed = true;
        let used = lines.pending.is_some();
        drop(lines);
        if !used {
            self.0.changed.notify_waiters();
        }
        used
    }

    /// Writes the last lines of a closed log, and returns up to `limit` bytes of them. Blocks on the disk.
    pub(crate) fn finish(&self, limit: usize) -> io::Result<LogText> {
        self.flush();
        let file = &mut self.appender().file;
        let finished = file.settle().and_then(|()| file.end(limit));
        self.0.changed.notify_waiters();
        finished
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.lines.lock().closed
    }

    /// Resolves at the next write after this call, or when the log is closed.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }

    /// Reads whole lines from a position on, about `limit` bytes; returns them and the position after them.
    /// Blocks on the disk.
    pub(crate) fn read(&self, position: u64, limit: usize) -> io::Result<(Vec<u8>, u64)> {
        self.appender().file.read(position, limit)
    }

    /// Position of the last `lines`. Blocks on the disk.
    pub(crate) fn position_of_last(&self, lines: usize) -> io::Result<u64> {
        self.flush();
        self.appender().file.position_of_last(lines)
    }

    /// Moves the new lines to the file. Blocks on the disk.
    pub(crate) fn flush(&self) {
        let mut appender = self.appender();
        let mut lines = self.0.lines.lock();
        lines.announced = false;
        let Some(pending) = lines.pending.as_mut().filter(|pending| !pending.is_empty()) else {
            return;
        };
        let (text, gap) = pending.take();
        drop(lines);
        appender.append(&text, gap);
        drop(appender);
        self.0.changed.notify_waiters();
    }

    fn appender(&self) -> MappedMutexGuard<'_, Appender> {
        let Shared { folder, id, attempt, file, .. } = &*self.0;
        MutexGuard::map(file.lock(), |appender| {
            &mut **appender.get_or_insert_with(|| {
                let file = LogFile::new(folder.file(*id, *attempt));
                Box::new(Appender { file, lost: 0, began: false })
            })
        })
    }
}

impl Appender {
    /// Appends lines, after a note where something is missing before them. Lines that cannot be written are
    /// counted as lost.
    fn append(&mut self, text: &[u8], gap: Option<lines::Gap>) {
        let result = self.append_note(text).and_then(|()| self.file.append(text, gap));
        match result {
            Ok(()) => self.lost = 0,
            Err(error) => {
                if self.lost == 0 {
                    tracing::warn!(%error, log = %self.file.path().display(), "cannot write the log of a task");
                }
                self.lost += text.len() as u64 + gap.map_or(0, |gap| gap.bytes);
            }
        }
    }

    fn append_note(&mut self, text: &[u8]) -> io::Result<()> {
        let resumed = !self.began && self.file.total()? > 0;
        let note = match self.lost {
            0 if resumed => "the attempt runs again after an interruption".to_owned(),
            0 => String::new(),
            lost => format!("{lost} bytes of this log could not be written"),
        };
        if !note.is_empty() {
            self.file.append(&lines::note(&note, text), None)?;
        }
        self.began = true;
        Ok(())
    }
}
