//! The input file: how it is read, and what is said of it when that fails.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use image::{ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::png::{self, PngImage};
use super::{MAX_BYTES, MAX_PIXELS, MAX_SIDE};
use crate::task::{MEMORY_BUDGET, TaskContext, TaskError};

/// Most bytes that a decoder may take, the decoded image included.
const MAX_DECODER_BYTES: u64 = MAX_BYTES + (256 << 20);

/// Most bytes of one read, so that there are checks for cancellation in between.
const MAX_READ: usize = 1 << 20;

/// The input file, with the path that the client knows it by.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) ctx: &'a TaskContext,
    path: &'a str,
    pub(super) file: &'a File,
}

/// Reads a file until the task should stop: decoders have no other check.
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
    /// `file` is the input of the task, open for reading.
    pub(super) fn new(ctx: &'a TaskContext, file: &'a File) -> Self {
        Self { ctx, path: ctx.input_file_path().unwrap_or_default(), file }
    }

    /// A reader at the beginning of the file.
    pub(super) fn reader(&self) -> Result<BufReader<Watched<'a>>, TaskError> {
        let mut watched = self.watched();
        watched.rewind().map_err(|error| self.unreadable(&error))?;
        Ok(BufReader::new(watched))
    }

    /// The same, wherever the file stands and without a buffer.
    pub(super) fn watched(&self) -> Watched<'a> {
        Watched { ctx: self.ctx, file: self.file }
    }

    /// Length of the file in bytes.
    pub(super) fn length(&self) -> Result<u64, TaskError> {
        Ok(self.file.metadata().map_err(|error| self.unreadable(&error))?.len())
    }

    /// Format of the file by its content; names lie.
    pub(super) fn format(&self) -> Result<ImageFormat, TaskError> {
        let reader = ImageReader::new(self.reader()?);
        let reader = reader.with_guessed_format().map_err(|error| self.unreadable(&error))?;
        reader.format().filter(ImageFormat::reading_enabled).ok_or_else(|| {
            let expected = "expected JPEG, PNG, WebP, TIFF, BMP or GIF";
            TaskError::permanent(format!("`{}` is not an image: {expected}", self.path))
        })
    }

    /// A decoder that has read the header and found nothing wrong with it.
    pub(super) fn decoder(
        &self,
        format: ImageFormat,
    ) -> Result<Box<dyn ImageDecoder + 'a>, TaskError> {
        let explain = |error| self.explain(error);
        if format == ImageFormat::Png {
            let reader = png::open(|| self.reader(), explain)?;
            return Ok(Box::new(PngImage(reader)));
        }
        let mut reader = ImageReader::with_format(self.reader()?, format);
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_DECODER_BYTES);
        reader.limits(limits.clone());
        let mut decoder = reader.into_decoder().map_err(explain)?;
        if format == ImageFormat::Gif {
            // A frame may claim to be larger than the image that it is a part of.
            limits.max_alloc = Some(decoder.total_bytes());
            decoder.set_limits(limits).map_err(explain)?;
        }
        Ok(Box::new(decoder))
    }

    /// Refuses an image that is a bomb, or nothing.
    pub(super) fn check_size(&self, (width, height): (u32, u32)) -> Result<(), TaskError> {
        let problem = if width == 0 || height == 0 {
            "there is nothing to resize".to_owned()
        } else if width > MAX_SIDE || height > MAX_SIDE {
            format!("the limit is {MAX_SIDE} on a side")
        } else if u64::from(width) * u64::from(height) > MAX_PIXELS {
            format!("the limit is {} megapixels", MAX_PIXELS / 1_000_000)
        } else {
            return Ok(());
        };
        let path = self.path;
        Err(TaskError::permanent(format!("image `{path}` is {width}x{height} pixels, {problem}")))
    }

    /// Refuses an image that would need more memory than there is for all of them.
    pub(super) fn check_memory(&self, needed: u64) -> Result<(), TaskError> {
        if needed <= MEMORY_BUDGET {
            return Ok(());
        }
        Err(TaskError::permanent(format!(
            "image `{}` would take {} MiB of memory to process, more than the limit of {} MiB",
            self.path,
            needed >> 20,
            MEMORY_BUDGET >> 20
        )))
    }

    pub(super) fn explain(&self, error: ImageError) -> TaskError {
        match error {
            ImageError::IoError(error) => self.unreadable(&error),
            ImageError::Limits(_) => self.too_much_memory(),
            other => self.damaged(&other),
        }
    }

    /// Tells a disk that fails, which may get better, from a decoder that had too little to read.
    pub(super) fn unreadable(&self, error: &io::Error) -> TaskError {
        match error.kind() {
            _ if self.ctx.is_cancelled() => TaskError::Cancelled,
            io::ErrorKind::UnexpectedEof => self.truncated(),
            // A position that a damaged file sends its reader to.
            io::ErrorKind::InvalidInput => self.damaged(error),
            _ if error.raw_os_error().is_none() => self.damaged(error),
            _ => TaskError::failed(format!("cannot read `{}`: {error}", self.path)),
        }
    }

    pub(super) fn truncated(&self) -> TaskError {
        TaskError::permanent(format!("image `{}` is truncated: the file ends too early", self.path))
    }

    pub(super) fn damaged(&self, error: &dyn Display) -> TaskError {
        TaskError::permanent(format!("cannot decode image `{}`: {error}", self.path))
    }

    /// The file is another one than when its header was first read.
    pub(super) fn changed(&self) -> TaskError {
        TaskError::failed(format!("image `{}` changed while it was read", self.path))
    }

    pub(super) fn too_much_memory(&self) -> TaskError {
        TaskError::permanent(format!(
            "image `{}` would take more memory to decode than the limit of {} MiB",
            self.path,
            MAX_BYTES >> 20
        ))
    }
}
