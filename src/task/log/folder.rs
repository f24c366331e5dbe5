//! The folder of the logs, and the thread that writes them.

use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, SystemTime};
use std::{io, iter, thread};

use super::TaskLog;
use super::file::{LogText, PART, read_text};
use crate::task::TaskId;

/// Pause between two rounds of the thread, in which lines gather. If the server is killed, the lines of this
/// time are lost.
const GATHER: Duration = Duration::from_millis(5);
const SUFFIX: &str = ".log";
/// Age above which an unfinished rewrite was left behind by a crash.
const LONGEST_REWRITE: Duration = Duration::from_secs(60);
/// Bytes of a block in the figures of a file system.
const BLOCK: u64 = 512;

/// All logs of a server. Its thread receives each log with new lines, once, and writes them. So the lines of
/// many tasks gather, and no task waits for the disk.
#[derive(Debug)]
pub(crate) struct LogFolder {
    path: PathBuf,
    /// Logs with new lines. The thread ends when all senders are gone.
    unwritten: Sender<TaskLog>,
}

/// A file in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogEntry {
    /// Time of the last line.
    pub(crate) written_at: SystemTime,
    pub(crate) id: TaskId,
    pub(crate) attempt: u32,
    /// Space on the disk, in bytes.
    pub(crate) bytes: u64,
}

impl LogFolder {
    /// Starts the thread. The folder is made with the first line.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(path: PathBuf) -> io::Result<Arc<Self>> {
        let (unwritten, logs) = mpsc::channel();
        thread::Builder::new().name("logs".to_owned()).spawn(move || write(&logs))?;
        Ok(Arc::new(Self { path, unwritten }))
    }

    /// Log of one attempt.
    pub(crate) fn log(self: &Arc<Self>, id: TaskId, attempt: u32) -> TaskLog {
        TaskLog::new(Arc::clone(self), id, attempt)
    }

    /// Reads the log of an attempt that is not running; `None` if there is no file.
    pub(crate) fn read(&self, id: TaskId, attempt: u32) -> io::Result<Option<LogText>> {
        read_text(&self.file(id, attempt))
    }

    pub(crate) fn remove(&self, id: TaskId, attempt: u32) -> io::Result<()> {
        match std::fs::remove_file(self.file(id, attempt)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Lists the files, in no order. Skips files that are not logs, and removes unfinished rewrites that a
    /// crash left behind.
    pub(crate) fn entries(&self) -> io::Result<impl Iterator<Item = LogEntry> + Send + use<>> {
        let entries = match self.path.read_dir() {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(entries.into_iter().flatten().flatten().filter_map(|entry| entry_of(&entry)))
    }

    pub(super) fn file(&self, id: TaskId, attempt: u32) -> PathBuf {
        self.path.join(format!("{id}.{attempt}{SUFFIX}"))
    }

    /// Has the thread write the new lines of a log.
    pub(super) fn has_lines(&self, log: TaskLog) {
        // Fails only if the thread has panicked.
        let _ = self.unwritten.send(log);
    }
}

fn write(logs: &Receiver<TaskLog>) {
    while let Ok(log) = logs.recv() {
        // Those that get new lines meanwhile have to wait for the next round.
        let round: Vec<_> = iter::once(log).chain(logs.try_iter()).collect();
        round.iter().for_each(TaskLog::flush);
        thread::sleep(GATHER);
    }
}

fn entry_of(entry: &DirEntry) -> Option<LogEntry> {
    let name = entry.file_name();
    let name = name.to_str()?;
    let (id, attempt) =
        name.strip_suffix(PART).unwrap_or(name).strip_suffix(SUFFIX)?.split_once('.')?;
    let (id, attempt) = (id.parse().ok()?, attempt.parse().ok()?);
    let file = entry.metadata().ok()?;
    let written_at = file.modified().ok()?;
    if name.ends_with(PART) {
        let age = written_at.elapsed().unwrap_or_default();
        if age > LONGEST_REWRITE {
            // Tried again in the next pass.
            let _ = std::fs::remove_file(entry.path());
        }
        return None;
    }
    Some(LogEntry { written_at, id, attempt, bytes: file.blocks() * BLOCK })
}
