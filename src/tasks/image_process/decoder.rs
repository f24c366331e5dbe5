//! Decoders by format, with bounded memory.

use image::{ImageDecoder, ImageFormat, ImageReader, Limits};

use super::MAX_BYTES;
use super::input::Input;
use super::png::{self, PngImage};
use crate::task::TaskError;

/// Limit in bytes for a decoder, including the decoded image.
const MAX_DECODER_BYTES: u64 = MAX_BYTES + (256 << 20);

/// Returns a decoder that has read a valid header.
pub(super) fn decoder<'a>(
    input: &Input<'a>,
    format: ImageFormat,
) -> Result<Box<dyn ImageDecoder + 'a>, TaskError> {
    let explain = |error| input.explain(error);
    if format == ImageFormat::Png {
        return Ok(Box::new(PngImage(png::open(input)?)));
    }
    let mut reader = ImageReader::with_format(input.reader()?, format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(explain)?;
    if format == ImageFormat::Gif {
        // A frame may claim to be larger than its image.
        limits.max_alloc = Some(decoder.total_bytes());
        decoder.set_limits(limits).map_err(explain)?;
    }
    Ok(Box::new(decoder))
}
