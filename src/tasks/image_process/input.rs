//! Reads the input file, and explains failures in terms of it.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use image::{ImageError, ImageFormat, ImageReader};

use super::{MAX_BYTES, MAX_PIXELS, MAX_SIDE};
use crate::task::{TaskContext, TaskError};

/// Limit in bytes for one read, so that cancellation is checked between reads.
const MAX_READ: usize = 1 << 20;

/// The input file and the path the client gave.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) ctx: &'a TaskContext,
    path: &'a str,
    pub(super) file: &'a File,
}

/// File reader that fails once the task is cancelled: decoders have no other check.
pub(super) struct Watched<'a> {
    ctx: &'a TaskContext,
    file: &'a File,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ctx.check_cancelled().map_err(|stop| io::Error::other(stop.to_string()))?;
        let length = buffer.len().min(MAX_READ);
        self.file.read(&mut buffer[..length])
    }
}

impl Seek for Watched<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl<'a> Input<'a> {
    /// `file` is the opened input of the task.
    pub(super) fn new(ctx: &'a TaskContext, file: &'a File) -> Self {
        Self { ctx, path: ctx.input_file_path().unwrap_or_default(), file }
    }

    /// Returns a reader at the beginning of the file.
    pub(super) fn reader(&self) -> Result<BufReader<Watched<'a>>, TaskError> {
        let mut watched = Watched { ctx: self.ctx, file: self.file };
        watched.rewind().map_err(|error| self.unreadable(&error))?;
        Ok(BufReader::new(watched))
    }

    /// Length of the file in bytes.
    pub(super) fn length(&self) -> Result<u64, TaskError> {
        Ok(self.file.metadata().map_err(|error| self.unreadable(&error))?.len())
    }

    /// Image format by content: the extension may be wrong.
    pub(super) fn format(&self) -> Result<ImageFormat, TaskError> {
        let reader = ImageReader::new(self.reader()?);
        let reader = reader.with_guessed_format().map_err(|error| self.unreadable(&error))?;
        reader.format().filter(ImageFormat::reading_enabled).ok_or_else(|| {
            let expected = "expected JPEG, PNG, WebP, TIFF, BMP or GIF";
            TaskError::permanent(format!("`{}` is not an image: {expected}", self.path))
        })
    }

    /// Refuses empty images and decompression bombs.
    pub(super) fn check_size(&self, (width, height): (u32, u32)) -> Result<(), TaskError> {
        let problem = if width == 0 || height == 0 {
            "there is nothing to resize".to_owned()
        } else if width > MAX_SIDE || height > MAX_SIDE {
            format!("the limit is {MAX_SIDE} per side")
        } else if u64::from(width) * u64::from(height) > MAX_PIXELS {
            format!("the limit is {} megapixels", MAX_PIXELS / 1_000_000)
        } else {
            return Ok(());
        };
        Err(self.refused(format_args!("is {width}x{height} pixels, {problem}")))
    }

    pub(super) fn explain(&self, error: ImageError) -> TaskError {
        match error {
            ImageError::IoError(error) => self.unreadable(&error),
            ImageError::Limits(_) => self.too_much_memory(),
            other => self.damaged(&other),
        }
    }

    /// Separates a failing disk, which may recover, from damage reported as an I/O error.
    pub(super) fn unreadable(&self, error: &io::Error) -> TaskError {
        match error.kind() {
            _ if self.ctx.is_cancelled() => TaskError::Cancelled,
            io::ErrorKind::UnexpectedEof => self.truncated(),
            // A seek to an invalid position from a damaged file.
            io::ErrorKind::InvalidInput => self.damaged(error),
            _ if error.raw_os_error().is_none() => self.damaged(error),
            _ => TaskError::failed(format!("cannot read `{}`: {error}", self.path)),
        }
    }

    pub(super) fn damaged(&self, error: &dyn Display) -> TaskError {
        TaskError::permanent(format!("cannot decode image `{}`: {error}", self.path))
    }

    /// The file differs from the one whose header was read first.
    pub(super) fn changed(&self) -> TaskError {
        TaskError::failed(format!("image `{}` changed while it was read", self.path))
    }

    pub(super) fn truncated(&self) -> TaskError {
        self.refused("is truncated: the file ends too early")
    }

    pub(super) fn too_much_memory(&self) -> TaskError {
        let limit = MAX_BYTES >> 20;
        self.refused(format_args!("needs more than {limit} MiB of memory to decode"))
    }

    fn refused(&self, reason: impl Display) -> TaskError {
        TaskError::permanent(format!("image `{}` {reason}", self.path))
    }
}
