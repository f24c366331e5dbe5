//! PNG by the `png` crate itself: the image crate's decoder keeps all text and any profile in
//! memory, and its encoder keeps the whole output.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Seek, Write};

use image::error::{DecodingError, LimitError, LimitErrorKind};
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageResult};
use png::{BitDepth, Compression, Decoder, Filter, Limits, Reader, Transformations};

use super::input::{Input, Watched};
use super::metadata::MAX_PROFILE_BYTES;
use crate::task::TaskError;

/// Limit in bytes for chunks, for their unpacked contents, and for a row of pixels.
const MAX_CHUNK_BYTES: usize = 2 * MAX_PROFILE_BYTES + (2 << 20);

/// Bytes of compressed data per chunk of the output.
const CHUNK_BYTES: usize = 64 << 10;

/// Reads up to the pixels. Skips text, and a profile above the limit.
pub(super) fn open<'a>(input: &Input<'a>) -> Result<Reader<BufReader<Watched<'a>>>, TaskError> {
    let open = |ignore_profile| {
        let limits = Limits { bytes: MAX_CHUNK_BYTES };
        let mut decoder = Decoder::new_with_limits(input.reader()?, limits);
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(ignore_profile);
        decoder.set_transformations(Transformations::EXPAND);
        Ok::<_, TaskError>(decoder.read_info())
    };
    let opened = match open(false)? {
        Err(png::DecodingError::LimitsExceeded) => open(true)?,
        opened => opened,
    };
    opened.map_err(|error| input.explain(image_error(error)))
}

/// The equivalent error of the image crate.
pub(super) fn image_error(error: png::DecodingError) -> ImageError {
    match error {
        png::DecodingError::IoError(error) => ImageError::IoError(error),
        png::DecodingError::LimitsExceeded => {
            ImageError::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory))
        }
        other => ImageError::Decoding(DecodingError::new(ImageFormat::Png.into(), other)),
    }
}

/// An opened PNG as a decoder of the image crate.
pub(super) struct PngImage<R: BufRead + Seek>(pub(super) Reader<R>);

impl<R: BufRead + Seek> ImageDecoder for PngImage<R> {
    fn dimensions(&self) -> (u32, u32) {
        self.0.info().size()
    }

    fn color_type(&self) -> ColorType {
        let (color, depth) = self.0.output_color_type();
        let deep = depth == BitDepth::Sixteen;
        match color {
            png::ColorType::Grayscale if deep => ColorType::L16,
            png::ColorType::Grayscale => ColorType::L8,
            png::ColorType::GrayscaleAlpha if deep => ColorType::La16,
            png::ColorType::GrayscaleAlpha => ColorType::La8,
            png::ColorType::Rgb if deep => ColorType::Rgb16,
            // EXPAND resolves palettes.
            png::ColorType::Rgb | png::ColorType::Indexed => ColorType::Rgb8,
            png::ColorType::Rgba if deep => ColorType::Rgba16,
            png::ColorType::Rgba => ColorType::Rgba8,
        }
    }

    fn icc_profile(&mut self) -> ImageResult<Option<Vec<u8>>> {
        Ok(self.0.info().icc_profile.as_deref().map(<[u8]>::to_vec))
    }

    fn exif_metadata(&mut self) -> ImageResult<Option<Vec<u8>>> {
        Ok(self.0.info().exif_metadata.as_deref().map(<[u8]>::to_vec))
    }

    fn read_image(mut self, pixels: &mut [u8]) -> ImageResult<()> {
        let deep = self.0.output_color_type().1 == BitDepth::Sixteen;
        self.0.next_frame(pixels).map_err(image_error)?;
        if deep {
            for sample in pixels.as_chunks_mut().0 {
                *sample = u16::from_be_bytes(*sample).to_ne_bytes();
            }
        }
        Ok(())
    }

    fn read_image_boxed(self: Box<Self>, pixels: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(pixels)
    }
}

/// Writes an image row by row.
pub(super) fn write(
    image: &DynamicImage,
    icc_profile: Option<Vec<u8>>,
    output: impl Write,
) -> Result<(), TaskError> {
    let color = image.color();
    let mut info = png::Info::with_size(image.width(), image.height());
    info.icc_profile = icc_profile.map(Cow::Owned);
    let mut encoder = png::Encoder::with_info(output, info)?;
    encoder.set_color(match (color.has_color(), color.has_alpha()) {
        (false, false) => png::ColorType::Grayscale,
        (false, true) => png::ColorType::GrayscaleAlpha,
        (true, false) => png::ColorType::Rgb,
        (true, true) => png::ColorType::Rgba,
    });
    let deep = color.bytes_per_pixel() / color.channel_count() == 2;
    encoder.set_depth(if deep { BitDepth::Sixteen } else { BitDepth::Eight });
    encoder.set_compression(Compression::Fast);
    encoder.set_filter(Filter::Adaptive);
    let mut writer = encoder.write_header()?;
    let mut stream = writer.stream_writer_with_size(CHUNK_BYTES)?;
    let row_bytes = image.width() as usize * usize::from(color.bytes_per_pixel());
    let mut row = Vec::with_capacity(row_bytes);
    for samples in image.as_bytes().chunks(row_bytes) {
        row.clear();
        row.extend(samples);
        if deep {
            for sample in row.as_chunks_mut().0 {
                *sample = u16::from_ne_bytes(*sample).to_be_bytes();
            }
        }
        stream.write_all(&row)?;
    }
    stream.finish()?;
    Ok(writer.finish()?)
}
