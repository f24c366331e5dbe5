//! TIFFs with samples that no pixel type of the image crate can hold: integers that are signed or
//! have 32 or 64 bits, and floating point. Their samples are scaled to 16 bits.

use image::{ColorType, DynamicImage, ImageBuffer};
use tiff::decoder::{Decoder, DecodingResult};
use tiff::tags::{SampleFormat, Tag};
use tiff::{ColorType as TiffColor, TiffError};

use super::MAX_BYTES;
use super::input::Input;
use crate::task::{TaskContext, TaskError};

/// Samples between two checks for cancellation.
const STEP: usize = 1 << 20;

/// Facts from the header of such a TIFF.
pub(super) struct Layout {
    pub(super) size: (u32, u32),
    /// Pixel type after scaling.
    pub(super) color: ColorType,
    /// Bytes of the unpacked samples before scaling.
    pub(super) bytes: u64,
}

/// An image, and the samples that became black and white, if finite samples were scaled.
pub(super) type Scaled = (DynamicImage, Option<[f64; 2]>);

impl Layout {
    /// Returns `None` for a TIFF that the image crate decodes, or that cannot be decoded at all.
    pub(super) fn read(input: &Input<'_>) -> Result<Option<Self>, TaskError> {
        let Ok(mut decoder) = Decoder::new(input.reader()?) else { return Ok(None) };
        let (Ok(size), Ok(color)) = (decoder.dimensions(), decoder.colortype()) else {
            return Ok(None);
        };
        let formats = decoder.find_tag_unsigned_vec::<u16>(Tag::SampleFormat).ok().flatten();
        let format =
            formats.and_then(|formats| formats.first().copied()).and_then(SampleFormat::from_u16);
        let is_unsigned = format.is_none_or(|format| format == SampleFormat::Uint);
        let (color, channels, bits) = match color {
            TiffColor::Gray(bits) => (ColorType::L16, 1, bits),
            // The image crate has a pixel type for these.
            TiffColor::RGB(32) if format == Some(SampleFormat::IEEEFP) => return Ok(None),
            TiffColor::RGB(bits) => (ColorType::Rgb16, 3, bits),
            _ => return Ok(None),
        };
        if is_unsigned && bits <= 16 {
            return Ok(None);
        }
        let samples = u64::from(size.0) * u64::from(size.1) * channels;
        Ok(Some(Self { size, color, bytes: samples * u64::from(bits.div_ceil(8)) }))
    }
}

/// Decodes and scales such a TIFF.
pub(super) fn decode(input: &Input<'_>, layout: &Layout) -> Result<Scaled, TaskError> {
    let explain = |error| match error {
        TiffError::IoError(error) => input.unreadable(&error),
        TiffError::LimitsExceeded => input.too_much_memory(),
        other => input.damaged(&other),
    };
    let mut limits = tiff::decoder::Limits::default();
    limits.decoding_buffer_size = MAX_BYTES as usize;
    let decoder = Decoder::new(input.reader()?).map_err(explain)?;
    let mut decoder = decoder.with_limits(limits);
    let mut samples = DecodingResult::U8(Vec::new());
    let read = decoder.read_image_to_buffer(&mut samples).map_err(explain)?;
    if read.planes > 1 {
        return Err(input.damaged(&"planar samples are not supported, expected interleaved ones"));
    }
    let ctx = input.ctx;
    let (samples, from) = match samples {
        DecodingResult::U8(samples) => scale(ctx, &samples, f64::from),
        DecodingResult::U16(samples) => scale(ctx, &samples, f64::from),
        DecodingResult::U32(samples) => scale(ctx, &samples, f64::from),
        DecodingResult::U64(samples) => scale(ctx, &samples, |sample| sample as f64),
        DecodingResult::I8(samples) => scale(ctx, &samples, f64::from),
        DecodingResult::I16(samples) => scale(ctx, &samples, f64::from),
        DecodingResult::I32(samples) => scale(ctx, &samples, f64::from),
        DecodingResult::I64(samples) => scale(ctx, &samples, |sample| sample as f64),
        DecodingResult::F16(samples) => scale(ctx, &samples, |sample| f64::from(f32::from(sample))),
        DecodingResult::F32(samples) => scale(ctx, &samples, f64::from),
        DecodingResult::F64(samples) => scale(ctx, &samples, |sample| sample),
    }?;
    let (width, height) = layout.size;
    let pixels = match layout.color {
        ColorType::L16 => {
            ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLuma16)
        }
        _ => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgb16),
    };
    let pixels =
        pixels.ok_or_else(|| input.damaged(&"it has fewer samples than its size requires"))?;
    Ok((pixels, from))
}

/// Scales the colours of a floating-point image to 16 bits. Alpha ranges from 0 to 1 already.
pub(super) fn narrow(ctx: &TaskContext, image: DynamicImage) -> Result<Scaled, TaskError> {
    let (width, height) = (image.width(), image.height());
    let (pixels, from) = match image {
        DynamicImage::ImageRgb32F(image) => {
            let (samples, from) = scale(ctx, image.as_raw(), f64::from)?;
            (ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgb16), from)
        }
        DynamicImage::ImageRgba32F(image) => {
            let colors: Vec<f32> =
                image.pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
            let (colors, from) = scale(ctx, &colors, f64::from)?;
            let alphas = image.pixels().map(|pixel| (pixel[3] * 65_535.0).round() as u16);
            let pixels = colors.as_chunks().0.iter().zip(alphas);
            let samples = pixels.flat_map(|(&[r, g, b], alpha)| [r, g, b, alpha]).collect();
            (ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgba16), from)
        }
        other => return Ok((other, None)),
    };
    Ok((pixels.unwrap_or_default(), from))
}

/// Scales samples so that the least becomes 0 and the greatest 65535, and returns these two as
/// well. NaN becomes 0, and so do samples that are all equal.
fn scale<T: Copy>(
    ctx: &TaskContext,
    samples: &[T],
    value: impl Fn(T) -> f64,
) -> Result<(Vec<u16>, Option<[f64; 2]>), TaskError> {
    let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
    for part in samples.chunks(STEP) {
        ctx.check_cancelled()?;
        for sample in part.iter().map(|&sample| value(sample)).filter(|sample| sample.is_finite()) {
            (least, greatest) = (least.min(sample), greatest.max(sample));
        }
    }
    // Halved, because the difference of two large numbers may be infinite.
    let range = greatest / 2.0 - least / 2.0;
    let mut scaled = Vec::with_capacity(samples.len());
    for part in samples.chunks(STEP) {
        ctx.check_cancelled()?;
        scaled.extend(part.iter().map(|&sample| {
            let share = (value(sample) / 2.0 - least / 2.0) / range;
            // The cast saturates, and turns NaN into 0.
            (share * 65_535.0).round() as u16
        }));
    }
    Ok((scaled, (least <= greatest).then_some([least, greatest])))
}
