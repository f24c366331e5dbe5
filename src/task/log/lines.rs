//! Lines of a log: a time, the source and a text, for example
//! `2026-11-27T10:45:21.123Z out Segmented 12 cells`.
//!
//! A line is valid UTF-8 without NUL and starts with its time, so no text can forge a line or a mark.

use std::io::Write;

use super::file::{HEAD, TAIL};
use super::text::{last_lines, whole_lines};
use crate::task::Timestamp;

/// Longest text of a line, in bytes. Longer ones are split.
const MAX_TEXT: usize = 8 * 1024;
/// Limit of the lines that wait for the disk, in bytes. The file keeps no more than that.
const MAX_PENDING: usize = HEAD + 2 * TAIL;
/// Start of the text of a line that continues the previous one.
const CONTINUED: &str = "…";
const REPLACEMENT: &str = "\u{fffd}";

/// Source of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// Standard output of a program.
    Stdout,
    /// Standard error of a program.
    Stderr,
    /// `tracing` in the code of a task.
    Tracing,
    /// The server.
    Server,
}

impl LogSource {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "out",
            Self::Stderr => "err",
            Self::Tracing => "log",
            Self::Server => "server",
        }
    }
}

/// Lines that are not yet in the file. If the disk is too slow, lines are dropped that the file would leave
/// out anyway.
#[derive(Debug, Default)]
pub(super) struct Pending {
    text: Vec<u8>,
    gap: Option<Gap>,
    clock: Clock,
}

/// Lines left out of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Position in the text.
    pub(super) at: usize,
    pub(super) bytes: u64,
}

/// The text of a second, formatted once for all its lines.
#[derive(Debug, Default)]
struct Clock {
    second: Option<i64>,
    text: String,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes all lines, and the gap in them.
    pub(super) fn take(&mut self) -> (Vec<u8>, Option<Gap>) {
        (std::mem::take(&mut self.text), self.gap.take())
    }

    /// Adds `bytes` as one line, or as several if it contains line feeds or is long. What is not UTF-8 and
    /// each NUL become U+FFFD; other control characters stay.
    pub(super) fn add(&mut self, now: Timestamp, source: LogSource, bytes: &[u8]) {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        for line in bytes.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.begin(now, source);
            let mut writer = LineWriter { pending: self, now, source, room: MAX_TEXT };
            match str::from_utf8(line) {
                Ok(text) if !text.contains('\0') => writer.put(text),
                _ => writer.put_repaired(line),
            }
            self.end();
        }
    }

    fn begin(&mut self, now: Timestamp, source: LogSource) {
        self.clock.write(now, &mut self.text);
        self.text.push(b' ');
        self.text.extend_from_slice(source.name().as_bytes());
        self.text.push(b' ');
    }

    fn end(&mut self) {
        self.text.push(b'\n');
        if self.text.len() > MAX_PENDING {
            self.leave_out();
        }
    }

    /// Keeps the first [`HEAD`] and the last [`TAIL`] bytes: all that the file can take of these lines.
    fn leave_out(&mut self) {
        let gap =
            self.gap.get_or_insert_with(|| Gap { at: whole_lines(&self.text, HEAD), bytes: 0 });
        let kept = gap.at + last_lines(&self.text[gap.at..], TAIL);
        gap.bytes += (kept - gap.at) as u64;
        self.text.drain(gap.at..kept);
    }
}

/// A line of the server, with the time of the line that it precedes.
pub(super) fn note(text: &str, before: &[u8]) -> Vec<u8> {
    let time = before.split(|&byte| byte == b' ').next().unwrap_or_default();
    [time, b" ", LogSource::Server.name().as_bytes(), b" ", text.as_bytes(), b"\n"].concat()
}

/// Writes the text of one line, and begins another where it gets too long.
struct LineWriter<'p> {
    pending: &'p mut Pending,
    now: Timestamp,
    source: LogSource,
    room: usize,
}

impl LineWriter<'_> {
    fn put(&mut self, mut text: &str) {
        while text.len() > self.room {
            let (fits, rest) = text.split_at(text.floor_char_boundary(self.room));
            self.pending.text.extend_from_slice(fits.as_bytes());
            self.pending.end();
            self.pending.begin(self.now, self.source);
            self.pending.text.extend_from_slice(CONTINUED.as_bytes());
            self.room = MAX_TEXT;
            text = rest;
        }
        self.pending.text.extend_from_slice(text.as_bytes());
        self.room -= text.len();
    }

    fn put_repaired(&mut self, line: &[u8]) {
        for chunk in line.utf8_chunks() {
            let mut parts = chunk.valid().split('\0');
            self.put(parts.next().unwrap_or_default());
            for part in parts {
                self.put(REPLACEMENT);
                self.put(part);
            }
            if !chunk.invalid().is_empty() {
                self.put(REPLACEMENT);
            }
        }
    }
}

impl Clock {
    /// Writes a time in RFC 3339 with milliseconds, as a prefix of one with microseconds.
    fn write(&mut self, now: Timestamp, text: &mut Vec<u8>) {
        let micros = now.as_micros();
        let second = micros.div_euclid(1_000_000);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = Timestamp::from_micros(second * 1_000_000).to_string();
            self.text.truncate(self.text.len() - ".000000Z".len());
        }
        text.extend_from_slice(self.text.as_bytes());
        let millis = micros.rem_euclid(1_000_000) / 1000;
        // Cannot fail: a vector grows.
        let _ = write!(text, ".{millis:03}Z");
    }
}
