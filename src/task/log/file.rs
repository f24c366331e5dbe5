//! The file of a log: the first 256 KiB of its lines and the last megabyte, with a mark between them for
//! what was left out.
//!
//! ```text
//! head    first lines, up to HEAD bytes
//! mark    [… 12345 bytes left out …]      only if anything was
//! tail    last lines, TAIL bytes; while the log grows, up to twice that
//! ```
//!
//! Lines are appended until the tail has twice its size. Then the file is rewritten under another name and
//! renamed, so a crash at any time leaves a whole file. Positions in a log count all its bytes, including those
//! left out.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::lines::Gap;
use super::text::{last_lines, tail_lines, whole_lines};

/// Size of the head, in bytes.
pub(super) const HEAD: usize = 256 * 1024;
/// Size of the tail of a finished log, in bytes.
pub(super) const TAIL: usize = 1024 * 1024;
/// More than a mark takes.
const MAX_MARK: usize = 64;
/// More than the longest line takes.
const MAX_LINE: usize = 16 * 1024;
const MARK_BEGIN: &str = "[… ";
const MARK_END: &str = " bytes left out …]\n";

/// Suffix of the name of a file that is being rewritten.
pub(super) const PART: &str = ".part";

/// The file of one log. Made by the first append.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    /// `None` until the file is first looked at, and after an error.
    shape: Option<Shape>,
    /// Whether the file is known to end with a whole line. A crash or an error may leave part of one.
    whole: bool,
}

/// Sizes of the parts of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shape {
    head: u64,
    mark: u64,
    left_out: u64,
    tail: u64,
}

impl Shape {
    /// Size of the file.
    fn size(self) -> u64 {
        self.head + self.mark + self.tail
    }

    /// Size of the log, with what was left out.
    fn total(self) -> u64 {
        self.head + self.left_out + self.tail
    }

    /// Begin of the part of the file that has nothing left out.
    fn after_gap(self) -> u64 {
        if self.left_out > 0 { self.head + self.mark } else { 0 }
    }

    /// Bytes that the head can still take.
    fn room(self) -> usize {
        if self.tail == 0 && self.left_out == 0 { HEAD - self.head as usize } else { 0 }
    }
}

/// Text of a log as readers see it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LogText {
    pub(crate) text: Vec<u8>,
    /// Size of the log, with what was left out.
    pub(crate) total: u64,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, shape: None, whole: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the log, with what was left out.
    pub(super) fn total(&mut self) -> io::Result<u64> {
        Ok(self.shape()?.total())
    }

    /// Appends whole lines.
    pub(super) fn append(&mut self, text: &[u8], gap: Option<Gap>) -> io::Result<()> {
        let shape = self.shape()?;
        if !self.whole {
            self.open(OpenOptions::new().write(true))?.set_len(shape.size())?;
        }
        // An error may leave part of the text behind.
        (self.shape, self.whole) = (None, false);
        let first = gap.map_or(text, |gap| &text[..gap.at]);
        let head = whole_lines(first, shape.room());
        let tail = shape.tail as usize + text.len() - head;
        self.shape = Some(match gap {
            None if tail <= 2 * TAIL => {
                create(OpenOptions::new().append(true), &self.path)?.write_all(text)?;
                Shape { head: shape.head + head as u64, tail: tail as u64, ..shape }
            }
            None => self.rewrite(shape, &text[..head], &text[head..], None)?,
            Some(gap) => {
                let lost = (gap.at - head) as u64 + gap.bytes;
                self.rewrite(shape, &text[..head], &text[gap.at..], Some(lost))?
            }
        });
        self.whole = true;
        Ok(())
    }

    /// Cuts the tail to its final size.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let shape = self.shape()?;
        if shape.tail as usize > TAIL {
            self.shape = None;
            self.shape = Some(self.rewrite(shape, b"", b"", None)?);
        }
        Ok(())
    }

    /// Writes a new file: the head and `head`, a mark, and the last lines of the tail and `text`. If bytes
    /// between the tail and `text` are lost, the tail is left out too.
    fn rewrite(
        &self,
        shape: Shape,
        head: &[u8],
        text: &[u8],
        lost: Option<u64>,
    ) -> io::Result<Shape> {
        let total = shape.total() + (head.len() + text.len()) as u64 + lost.unwrap_or(0);
        let mut old = self.content(0..shape.size())?;
        let tail = old.split_off((shape.head + shape.mark) as usize);
        old.truncate(shape.head as usize);
        let cut = last_lines(text, TAIL);
        let text = &text[cut..];
        // What is left out has to be in one place.
        let tail = match cut > 0 || lost.is_some() {
            true => &[],
            false => &tail[last_lines(&tail, TAIL - text.len())..],
        };
        let (head_bytes, tail_bytes) = (old.len() + head.len(), tail.len() + text.len());
        let left_out = total - (head_bytes + tail_bytes) as u64;
        let mark = mark(left_out);
        let part = with_suffix(&self.path, PART);
        let mut file = create(OpenOptions::new().write(true).truncate(true), &part)?;
        for bytes in [&old, head, mark.as_bytes(), tail, text] {
            file.write_all(bytes)?;
        }
        std::fs::rename(&part, &self.path)?;
        let (head, mark, tail) = (head_bytes as u64, mark.len() as u64, tail_bytes as u64);
        Ok(Shape { head, mark, left_out, tail })
    }

    /// Reads whole lines from a position on, about `limit` bytes; returns them and the position after
    /// them. What was left out is replaced by a mark.
    pub(super) fn read(&mut self, position: u64, limit: usize) -> io::Result<(Vec<u8>, u64)> {
        let shape = self.shape()?;
        let tail = shape.head + shape.left_out;
        if position >= shape.total() {
            return Ok((Vec::new(), position));
        }
        if (shape.head..tail).contains(&position) {
            return Ok((mark(tail - position).into_bytes(), tail));
        }
        let (begin, end) = match position < shape.head {
            true => (position, shape.head),
            false => (position - shape.left_out + shape.mark, shape.size()),
        };
        let mut text = self.content(begin..end.min(begin + limit.max(MAX_LINE) as u64))?;
        text.truncate(whole_lines(&text, text.len()));
        let next = position + text.len() as u64;
        Ok((text, next))
    }

    /// Returns the last lines, up to `limit` bytes of them.
    pub(super) fn end(&mut self, limit: usize) -> io::Result<LogText> {
        let shape = self.shape()?;
        let begin = shape.after_gap().max(shape.size().saturating_sub((limit + MAX_LINE) as u64));
        let mut text = self.content(begin..shape.size())?;
        text.drain(..last_lines(&text, limit));
        Ok(LogText { text, total: shape.total() })
    }

    /// Position of the last lines, as many as asked for, but not before what was left out.
    pub(super) fn position_of_last(&mut self, lines: usize) -> io::Result<u64> {
        let shape = self.shape()?;
        let text = self.content(shape.after_gap()..shape.size())?;
        Ok(shape.total() - tail_lines(&text, lines).len() as u64)
    }

    fn shape(&mut self) -> io::Result<Shape> {
        if let Some(shape) = self.shape {
            return Ok(shape);
        }
        let shape = match self.open(OpenOptions::new().read(true)) {
            Ok(file) => {
                let size = whole_size(&file)?;
                self.whole = size == file.metadata()?.len();
                let mut start = vec![0; (size as usize).min(HEAD + MAX_MARK)];
                file.read_exact_at(&mut start, 0)?;
                shape_of(&start, size)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.whole = true;
                Shape::default()
            }
            Err(error) => return Err(error),
        };
        self.shape = Some(shape);
        Ok(shape)
    }

    fn content(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut content = vec![0; (range.end - range.start) as usize];
        if !content.is_empty() {
            self.open(OpenOptions::new().read(true))?.read_exact_at(&mut content, range.start)?;
        }
        Ok(content)
    }

    fn open(&self, options: &mut OpenOptions) -> io::Result<File> {
        private(options, &self.path)
    }
}
/// Reads the text of a log, with the tail cut to its final size; `None` if there is no file.
pub(super) fn read_text(path: &Path) -> io::Result<Option<LogText>> {
    let mut text = Vec::new();
    match private(OpenOptions::new().read(true), path) {
        Ok(mut file) => file.read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    text.truncate(whole_lines(&text, text.len()));
    let shape = shape_of(&text[..text.len().min(HEAD + MAX_MARK)], text.len() as u64);
    let tail = (shape.head + shape.mark) as usize;
    let cut = last_lines(&text[tail..], TAIL);
    if cut > 0 {
        let mark = mark(shape.left_out + cut as u64);
        text.splice(shape.head as usize..tail + cut, mark.into_bytes());
    }
    Ok(Some(LogText { text, total: shape.total() }))
}

/// Shape of a file, from its size and its first bytes.
fn shape_of(start: &[u8], size: u64) -> Shape {
    let mut head = 0;
    for line in start.split_inclusive(|&byte| byte == b'\n') {
        if let Some(left_out) = marked(line) {
            let mark = line.len() as u64;
            return Shape { head, mark, left_out, tail: size - head - mark };
        }
        if head as usize + line.len() > HEAD || line.last() != Some(&b'\n') {
            break;
        }
        head += line.len() as u64;
    }
    Shape { head, mark: 0, left_out: 0, tail: size - head }
}

/// Size of a file up to the end of its last whole line.
fn whole_size(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut end = vec![0; (size as usize).min(MAX_LINE)];
    let begin = size - end.len() as u64;
    file.read_exact_at(&mut end, begin)?;
    Ok(size - (end.len() - whole_lines(&end, end.len())) as u64)
}

/// Line in place of what was left out; empty if nothing was.
fn mark(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        bytes => format!("{MARK_BEGIN}{bytes}{MARK_END}"),
    }
}

/// Number of bytes left out, if the line is a mark. All other lines begin with a time.
fn marked(line: &[u8]) -> Option<u64> {
    let number = line.strip_prefix(MARK_BEGIN.as_bytes())?.strip_suffix(MARK_END.as_bytes())?;
    str::from_utf8(number).ok()?.parse().ok()
}

/// Opens a file, and makes it and its folder if need be.
fn create(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    match private(options.create(true), path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new(""));
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            private(options, path)
        }
        opened => opened,
    }
}

/// Opens a file that is readable by its owner only, and not through a link.
fn private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    options.mode(0o600).custom_flags(flags).open(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
