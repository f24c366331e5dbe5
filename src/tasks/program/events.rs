//! What a program says while it runs: events in its FIFO, progress in its output.

use std::convert::Infallible;
use std::io;
use std::path::Path;

use regex::bytes::Regex;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe::{OpenOptions, Receiver};

use super::lines::{End, Lines};
use crate::task::{LogSource, TaskContext};

/// Maximum length of an event: the kernel may mix longer ones with those of other processes.
/// Source: PIPE_BUF of Linux, pipe(7), without the newline.
pub(crate) const MAX_EVENT_BYTES: usize = 4095;
/// Size of a read: the capacity of a pipe on Linux.
const READ_BYTES: usize = 64 * 1024;
/// Maximum length of a line of output.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// Maximum length of a message that is taken from the output.
const MAX_MESSAGE_BYTES: usize = 200;

/// A line of JSON from a program.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    progress: Option<f64>,
    message: Option<String>,
    error: Option<String>,
    permanent: bool,
}

/// An error that a program has reported.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReportedError {
    pub(super) message: String,
    pub(super) permanent: bool,
}

/// The events of one program.
#[derive(Debug)]
pub(super) struct Events {
    pipe: Receiver,
    lines: Lines,
    /// The first error: later ones are often its consequences.
    error: Option<ReportedError>,
}

impl Events {
    /// Makes the FIFO.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // Also open for writing, so that it never ends: programs open and close it as they like.
        let pipe = OpenOptions::new().read_write(true).open_receiver(path)?;
        Ok(Self { pipe, lines: Lines::new(MAX_EVENT_BYTES), error: None })
    }

    /// Reads events and reports progress, until it is dropped.
    pub(super) async fn follow(&mut self, ctx: &TaskContext) -> Infallible {
        let mut chunk = vec![0; READ_BYTES];
        loop {
            match self.pipe.read(&mut chunk).await {
                Ok(read) => self.take(&chunk[..read], ctx),
                Err(error) => {
                    tracing::warn!(%error, "cannot read the events of the program");
                    return std::future::pending().await;
                }
            }
            // A flood must not hold up the other tasks of this thread.
            tokio::task::yield_now().await;
        }
    }

    /// Reads what is left after the end of the program, and returns the error that it reported.
    pub(super) fn finish(mut self, ctx: &TaskContext) -> Option<ReportedError> {
        let mut chunk = vec![0; READ_BYTES];
        while let Ok(read @ 1..) = self.pipe.try_read(&mut chunk) {
            self.take(&chunk[..read], ctx);
        }
        self.error
    }

    fn take(&mut self, bytes: &[u8], ctx: &TaskContext) {
        let mut latest = Event::default();
        let error = &mut self.error;
        self.lines.take(bytes, |line, _| match serde_json::from_slice::<Event>(line) {
            Ok(event) => {
                if let Some(message) = event.error {
                    let permanent = event.permanent;
                    error.get_or_insert(ReportedError { message, permanent });
                }
                latest.progress = event.progress.or(latest.progress);
                latest.message = event.message.or(latest.message.take());
            }
            Err(_) => {
                let line = String::from_utf8_lossy(line);
                let expected = r#"expected JSON such as {"progress": 42, "message": "FOV 5/12"}"#;
                tracing::warn!("malformed event `{line}`: {expected}, at most 4096 bytes");
            }
        });
        if latest.progress.is_some() || latest.message.is_some() {
            ctx.report(latest.progress, latest.message);
        }
    }
}

/// Reads one output stream of a program into the log of the task.
pub(super) struct OutputReader<'p> {
    pub(super) source: LogSource,
    /// For programs that know nothing of this server: the first group is the percentage.
    pub(super) progress: Option<&'p Regex>,
}

impl OutputReader<'_> {
    /// Reads the stream to its end. Returns its last line that is not blank.
    pub(super) async fn read(
        self,
        mut pipe: impl AsyncRead + Unpin,
        ctx: &TaskContext,
    ) -> io::Result<Option<String>> {
        let mut lines = Lines::new(MAX_LINE_BYTES);
        let mut last = Vec::new();
        let mut chunk = vec![0; READ_BYTES];
        loop {
            let read = pipe.read(&mut chunk).await?;
            let mut shown = None;
            lines.take(&chunk[..read], |line, end| {
                shown = self.progress_in(line).or(shown.take());
                if end == End::Line {
                    ctx.log().line(self.source, line);
                    if !line.trim_ascii().is_empty() {
                        last.clear();
                        last.extend_from_slice(line);
                    }
                }
            });
            shown = self.progress_in(lines.unfinished()).or(shown);
            if let Some((percent, message)) = shown {
                ctx.report(Some(percent), Some(message));
            }
            if read == 0 {
                break;
            }
            // A flood must not hold up the other tasks of this thread.
            tokio::task::yield_now().await;
        }
        let unfinished = lines.unfinished();
        if !unfinished.trim_ascii().is_empty() {
            ctx.log().line(self.source, unfinished);
            last = unfinished.to_vec();
        }
        let last = String::from_utf8_lossy(last.trim_ascii());
        Ok(Some(last.into_owned()).filter(|last| !last.is_empty()))
    }

    /// The percentage that a line shows, and the line as a message.
    fn progress_in(&self, line: &[u8]) -> Option<(f64, String)> {
        let percent = self.progress?.captures(line)?.get(1)?;
        let percent = std::str::from_utf8(percent.as_bytes()).ok()?.parse().ok()?;
        let message = String::from_utf8_lossy(&line[..line.len().min(MAX_MESSAGE_BYTES)]);
        Some((percent, message.trim().trim_end_matches('\u{fffd}').to_owned()))
    }
}
