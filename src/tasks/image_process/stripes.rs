//! Decodes a PNG in stripes and narrows each stripe before decoding the next, so that most of the
//! image is never in memory at its full width.

use std::io::{BufRead, Seek};

use fast_image_resize::images::Image;
use fast_image_resize::{PixelType, Resizer};
use image::{DynamicImage, GrayImage, RgbImage};
use png::{BitDepth, ColorType, Reader};

use super::input::Input;
use super::png::{image_error, open};
use super::resize::{STRIPE, lanczos};
use crate::task::TaskError;

/// Pixel type of an image for [`narrow`]. `None` if it is interlaced, has transparency or has more
/// than 8 bits per sample: such an image has to be decoded whole.
pub(super) fn pixel_type(reader: &Reader<impl BufRead + Seek>) -> Option<PixelType> {
    match reader.output_color_type() {
        _ if reader.info().interlaced => None,
        (ColorType::Grayscale, BitDepth::Eight) => Some(PixelType::U8),
        (ColorType::Rgb, BitDepth::Eight) => Some(PixelType::U8x3),
        _ => None,
    }
}

/// Returns whether a first pass from one size to another only reduces the width.
pub(super) fn narrows(old: (u32, u32), new: (u32, u32)) -> bool {
    new.0 < old.0 && new.1 == old.1
}

/// Decodes an image that has a [`pixel_type`], at another width.
pub(super) fn narrow(input: &Input<'_>, width: u32) -> Result<DynamicImage, TaskError> {
    let damaged = |error| input.explain(image_error(error));
    let mut reader = open(input)?;
    let pixel = pixel_type(&reader).ok_or_else(|| input.changed())?;
    let (old_width, height) = reader.info().size();
    let [old_row, row] = [old_width, width].map(|width| width as usize * pixel.size());
    let mut samples = vec![0; row * height as usize];
    let mut stripe = Image::new(old_width, height.min(STRIPE), pixel);
    for narrowed in samples.chunks_mut(row * STRIPE as usize) {
        input.ctx.check_cancelled()?;
        let rows = (narrowed.len() / row) as u32;
        if rows < stripe.height() {
            stripe = Image::new(old_width, rows, pixel);
        }
        for row in stripe.buffer_mut().chunks_exact_mut(old_row) {
            reader.read_row(row).map_err(damaged)?;
        }
        let mut narrowed = Image::from_slice_u8(width, rows, narrowed, pixel)?;
        Resizer::new().resize(&stripe, &mut narrowed, &lanczos())?;
    }
    // Only the checksums are left to read.
    reader.read_row(&mut []).map_err(damaged)?;
    let image = match pixel {
        PixelType::U8 => GrayImage::from_raw(width, height, samples).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, samples).map(DynamicImage::from),
    };
    Ok(image.expect("a buffer made for this size"))
}
