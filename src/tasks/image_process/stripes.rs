//! Decodes a PNG a stripe at a time, and makes each stripe narrower before the next one is decoded,
//! so that most of the image is never in memory at its full width.

use std::io::{BufRead, Seek};

use fast_image_resize::images::Image;
use fast_image_resize::{PixelType, Resizer};
use image::{DynamicImage, GrayImage, RgbImage};
use png::{BitDepth, ColorType, DecodingError, Reader};

use super::resize::{STRIPE, lanczos};
use crate::task::{TaskContext, TaskError};

/// Type of the pixels of an image for [`narrow`]. `None` if it is interlaced, has transparency or more
/// than 8 bits a sample: such an image has to be decoded whole.
pub(super) fn pixel_type(reader: &Reader<impl BufRead + Seek>) -> Option<PixelType> {
    match reader.output_color_type() {
        _ if reader.info().interlaced => None,
        (ColorType::Grayscale, BitDepth::Eight) => Some(PixelType::U8),
        (ColorType::Rgb, BitDepth::Eight) => Some(PixelType::U8x3),
        _ => None,
    }
}

/// Whether a first pass from one size to another makes an image narrower and nothing else.
pub(super) fn narrows(old: (u32, u32), new: (u32, u32)) -> bool {
    new.0 < old.0 && new.1 == old.1
}

/// Decodes an image and gives it another width. `None` if it has to be decoded whole.
pub(super) fn narrow(
    ctx: &TaskContext,
    reader: &mut Reader<impl BufRead + Seek>,
    width: u32,
    damaged: impl Fn(DecodingError) -> TaskError,
) -> Result<Option<DynamicImage>, TaskError> {
    let Some(pixel) = pixel_type(reader) else { return Ok(None) };
    let (old_width, height) = reader.info().size();
    let [old_row, row] = [old_width, width].map(|width| width as usize * pixel.size());
    let mut samples = vec![0; row * height as usize];
    let mut stripe = Image::new(old_width, height.min(STRIPE), pixel);
    for narrowed in samples.chunks_mut(row * STRIPE as usize) {
        ctx.check_cancelled()?;
        let rows = (narrowed.len() / row) as u32;
        if rows < stripe.height() {
            stripe = Image::new(old_width, rows, pixel);
        }
        for row in stripe.buffer_mut().chunks_exact_mut(old_row) {
            reader.read_row(row).map_err(&damaged)?;
        }
        let mut narrowed = Image::from_slice_u8(width, rows, narrowed, pixel)?;
        Resizer::new().resize(&stripe, &mut narrowed, &lanczos())?;
    }
    // What is left are the checksums.
    reader.read_row(&mut []).map_err(&damaged)?;
    Ok(match pixel {
        PixelType::U8 => GrayImage::from_raw(width, height, samples).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, samples).map(DynamicImage::from),
    })
}
