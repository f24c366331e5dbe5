//! From a file to pixels, and no further than its header if that asks for too much.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Seek};

use image::error::DecodingError;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::jpeg;
use super::probe::{count_frames, is_whole, png_size};
use super::resize::{after_first_pass, swaps_sides};
use super::stripes::narrow;
use super::{MAX_BYTES, MAX_PIXELS, MAX_SIDE};
use crate::task::{TaskContext, TaskError};

/// Most bytes that a decoder may take, the decoded image included.
const MAX_DECODER_BYTES: u64 = MAX_BYTES + (256 << 20);

/// The first image of a file, as it is stored there.
pub(super) struct Picture {
    /// The pixels; of some images after the first pass of [`resize`](super::resize).
    pub(super) pixels: DynamicImage,
    /// Width and height in the file.
    size: (u32, u32),
    /// What turns it upright.
    pub(super) orientation: Orientation,
    pub(super) icc_profile: Option<Vec<u8>>,
    /// How many images the file holds.
    pub(super) frames: usize,
}

impl Picture {
    /// Width and height as a viewer sees them.
    pub(super) fn upright_size(&self) -> (u32, u32) {
        let (width, height) = self.size;
        if swaps_sides(self.orientation) { (height, width) } else { (width, height) }
    }
}

/// Decodes the first image of the input, which is to have the size `new` when it is upright.
pub(super) fn load(ctx: &TaskContext, new: (u32, u32)) -> Result<Picture, TaskError> {
    let file = ctx.open_input()?;
    let input = Input { path: ctx.input_file_path().unwrap_or_default(), file: &file };
    let format = input.format()?;
    let frames = count_frames(ctx, &file, format).map_err(|error| input.unreadable(&error))?;
    ctx.check_cancelled()?;
    let mut decoder = input.decoder(format)?;
    // Neither is worth failing for.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let icc_profile = decoder.icc_profile().ok().flatten();
    let size = decoder.dimensions();
    let (width, height) = after_first_pass(size, orientation, new);
    let narrowed = match format {
        ImageFormat::Png if width < size.0 && height == size.1 => input.narrowed_png(ctx, width)?,
        _ => None,
    };
    let pixels = match narrowed {
        Some(pixels) => pixels,
        None => input.pixels(format, decoder)?,
    };
    Ok(Picture { pixels, size, orientation, icc_profile, frames })
}

/// The input file, with the path that the client knows it by.
struct Input<'a> {
    path: &'a str,
    file: &'a File,
}

impl<'a> Input<'a> {
    /// What the file is by its content; names lie.
    fn format(&self) -> Result<ImageFormat, TaskError> {
        let reader = ImageReader::new(BufReader::new(self.file));
        let reader = reader.with_guessed_format().map_err(|error| self.unreadable(&error))?;
        reader.format().filter(ImageFormat::reading_enabled).ok_or_else(|| {
            let expected = "expected JPEG, PNG, WebP, TIFF, BMP or GIF";
            TaskError::permanent(format!("`{}` is not an image: {expected}", self.path))
        })
    }

    /// A decoder that has read the header and found nothing wrong with it.
    fn decoder(&self, format: ImageFormat) -> Result<impl ImageDecoder + use<'a>, TaskError> {
        let unreadable = |error| self.unreadable(&error);
        // A JPEG is read into memory as it is.
        let length = self.file.metadata().map_err(unreadable)?.len();
        if format == ImageFormat::Jpeg && length > MAX_BYTES {
            return Err(self.too_much_memory());
        }
        if format == ImageFormat::Png
            && let Some((width, height)) = png_size(self.file)
        {
            self.check_size(width, height)?;
        }
        if !is_whole(self.file, format).map_err(unreadable)? {
            return Err(self.truncated());
        }
        let mut reader = ImageReader::with_format(self.reader()?, format);
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_DECODER_BYTES);
        reader.limits(limits);
        let decoder = reader.into_decoder().map_err(|error| self.explain(error))?;
        let (width, height) = decoder.dimensions();
        self.check_size(width, height)?;
        if decoder.total_bytes() > MAX_BYTES {
            return Err(self.too_much_memory());
        }
        Ok(decoder)
    }

    fn pixels(
        &self,
        format: ImageFormat,
        decoder: impl ImageDecoder,
    ) -> Result<DynamicImage, TaskError> {
        let misread = format == ImageFormat::Jpeg
            && jpeg::is_misread(self.reader()?).map_err(|error| self.unreadable(&error))?;
        if !misread {
            return DynamicImage::from_decoder(decoder).map_err(|error| self.explain(error));
        }
        let size = decoder.dimensions();
        // It has the file in memory.
        drop(decoder);
        jpeg::decode(self.reader()?, size).map_err(|error| match error {
            jpeg_decoder::Error::Io(error) => self.unreadable(&error),
            other => self.damaged(&other),
        })
    }

    /// The image at this width; `None` if it is not one for [`narrow`].
    fn narrowed_png(
        &self,
        ctx: &TaskContext,
        width: u32,
    ) -> Result<Option<DynamicImage>, TaskError> {
        let damaged = |error| match error {
            png::DecodingError::IoError(error) => self.unreadable(&error),
            png::DecodingError::LimitsExceeded => self.too_much_memory(),
            other => {
                let format = ImageFormat::Png.into();
                self.explain(ImageError::Decoding(DecodingError::new(format, other)))
            }
        };
        let limits = png::Limits { bytes: MAX_DECODER_BYTES as usize };
        let mut decoder = png::Decoder::new_with_limits(self.reader()?, limits);
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().map_err(damaged)?;
        narrow(ctx, &mut reader, width, damaged)
    }

    fn reader(&self) -> Result<BufReader<&'a File>, TaskError> {
        let mut file = self.file;
        file.rewind().map_err(|error| self.unreadable(&error))?;
        Ok(BufReader::new(file))
    }

    /// Refuses an image that is a bomb, or nothing.
    fn check_size(&self, width: u32, height: u32) -> Result<(), TaskError> {
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

    fn explain(&self, error: ImageError) -> TaskError {
        match error {
            ImageError::IoError(error) => self.unreadable(&error),
            ImageError::Limits(_) => self.too_much_memory(),
            other => self.damaged(&other),
        }
    }

    /// Tells a disk that fails, which may get better, from a decoder that had too little to read.
    fn unreadable(&self, error: &io::Error) -> TaskError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.truncated(),
            // A position that a damaged file sends its reader to.
            io::ErrorKind::InvalidInput => self.damaged(error),
            _ if error.raw_os_error().is_none() => self.damaged(error),
            _ => TaskError::failed(format!("cannot read `{}`: {error}", self.path)),
        }
    }

    fn truncated(&self) -> TaskError {
        TaskError::permanent(format!("image `{}` is truncated: the file ends too early", self.path))
    }

    fn damaged(&self, error: &dyn Display) -> TaskError {
        TaskError::permanent(format!("cannot decode image `{}`: {error}", self.path))
    }

    fn too_much_memory(&self) -> TaskError {
        TaskError::permanent(format!(
            "image `{}` would take more memory to decode than the limit of {} MiB",
            self.path,
            MAX_BYTES >> 20
        ))
    }
}
