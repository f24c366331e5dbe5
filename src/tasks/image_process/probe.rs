//! Facts about a file that need no decoded pixels: its number of images, and whether it is cut off.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, Read, Seek};
use std::os::unix::fs::FileExt;

use image::ImageFormat;

use super::input::Input;
use super::{jpeg, png};
use crate::task::{TaskContext, TaskError};

/// Number of readable images in the file: pages of a TIFF, frames of an animation.
pub(super) fn count_frames(input: &Input<'_>, format: ImageFormat) -> Result<usize, TaskError> {
    let reader = input.reader()?;
    let frames = match format {
        ImageFormat::Gif => gif_frames(input.ctx, reader),
        ImageFormat::Png => png_frames(input),
        ImageFormat::Tiff => tiff_pages(input.ctx, reader),
        ImageFormat::WebP => webp_frames(reader),
        _ => None,
    };
    Ok(frames.unwrap_or(1).max(1))
}

fn gif_frames(ctx: &TaskContext, reader: impl Read) -> Option<usize> {
    let mut options = gif::DecodeOptions::new();
    options.skip_frame_decoding(true);
    let mut decoder = options.read_info(reader).ok()?;
    let mut frames = 0;
    while !ctx.is_cancelled() && matches!(decoder.next_frame_info(), Ok(Some(_))) {
        frames += 1;
    }
    Some(frames)
}

fn png_frames(input: &Input<'_>) -> Option<usize> {
    let reader = png::open(input).ok()?;
    let animation = reader.info().animation_control()?;
    // The still image is either the first frame or separate from the animation.
    let separate = usize::from(reader.info().frame_control().is_none());
    Some(animation.num_frames as usize + separate)
}

fn tiff_pages(ctx: &TaskContext, reader: impl Read + Seek) -> Option<usize> {
    let mut decoder = tiff::decoder::Decoder::new(reader).ok()?;
    let mut pages = HashSet::new();
    let mut next = decoder.ifd_pointer();
    // In a damaged file a page may link back to an earlier one.
    while !ctx.is_cancelled()
        && let Some(page) = next
        && let Ok(directory) = decoder.read_directory(page)
        && pages.insert(page.0)
    {
        next = directory.next();
    }
    Some(pages.len())
}

fn webp_frames(reader: impl BufRead + Seek) -> Option<usize> {
    Some(image_webp::WebPDecoder::new(reader).ok()?.num_frames() as usize)
}

/// Size of a PNG, from its first bytes: the decoder would read on to the pixels first.
pub(super) fn png_size(input: &Input<'_>) -> Option<(u32, u32)> {
    let mut decoder = ::png::Decoder::new(input.reader().ok()?);
    Some(decoder.read_header_info().ok()?.size())
}

/// Returns whether the file is complete, for the formats whose decoders would paint missing pixels
/// grey instead of reporting an error.
pub(super) fn is_whole(input: &Input<'_>, format: ImageFormat) -> Result<bool, TaskError> {
    let length = input.length()?;
    let whole = match format {
        ImageFormat::Jpeg => match bytes_at(input.file, length.saturating_sub(2)) {
            Ok([0xFF, 0xD9]) => Ok(true),
            // Cameras and editors append data of their own.
            Ok(_) => jpeg::has_end(input.reader()?),
            Err(error) => Err(error),
        },
        // A WebP begins with "RIFF" and the length of the rest.
        ImageFormat::WebP => {
            bytes_at(input.file, 4).map(|rest| length >= 8 + u64::from(u32::from_le_bytes(rest)))
        }
        _ => Ok(true),
    };
    whole.map_err(|error| input.unreadable(&error))
}

fn bytes_at<const N: usize>(file: &File, position: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, position)?;
    Ok(bytes)
}
