//! What the structure of a file tells without decoding a pixel: how many images it holds, and
//! whether it was cut off.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use image::ImageFormat;

use super::input::Input;
use super::{jpeg, png};
use crate::task::{TaskContext, TaskError};

/// How many images the file holds: pages of a TIFF, frames of an animation. Those that cannot be
/// counted because the file is damaged behind the first one are left out.
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
    let reader = png::open(|| input.reader(), |error| input.explain(error)).ok()?;
    let animation = reader.info().animation_control()?;
    // The image that plain viewers show may be the first frame or stand apart from the animation.
    let apart = usize::from(reader.info().frame_control().is_none());
    Some(animation.num_frames as usize + apart)
}

fn tiff_pages(ctx: &TaskContext, reader: impl Read + Seek) -> Option<usize> {
    let mut decoder = tiff::decoder::Decoder::new(reader).ok()?;
    let mut pages = HashSet::new();
    let mut next = decoder.ifd_pointer();
    // Each page tells where the next one is: in a damaged file that may be an earlier one.
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
    let decoder = image_webp::WebPDecoder::new(reader).ok()?;
    Some(decoder.num_frames() as usize)
}

/// The size that a PNG states at its very beginning. The decoder would read on to the pixels
/// before it tells.
pub(super) fn png_size(mut file: &File) -> Option<(u32, u32)> {
    file.rewind().ok()?;
    let mut decoder = ::png::Decoder::new(BufReader::new(file));
    Some(decoder.read_header_info().ok()?.size())
}

/// Whether the file has its end, for the formats whose decoder does not complain: it would paint
/// what is missing grey.
pub(super) fn is_whole(input: &Input<'_>, format: ImageFormat) -> io::Result<bool> {
    let mut file = input.file;
    file.rewind()?;
    match format {
        ImageFormat::Jpeg => jpeg_is_whole(input),
        ImageFormat::WebP => webp_is_whole(file),
        _ => Ok(true),
    }
}

/// A WebP begins with "RIFF" and the length of the rest.
fn webp_is_whole(mut file: &File) -> io::Result<bool> {
    let mut start = [0; 8];
    file.read_exact(&mut start)?;
    let [.., a, b, c, d] = start;
    Ok(file.metadata()?.len() >= 8 + u64::from(u32::from_le_bytes([a, b, c, d])))
}

fn jpeg_is_whole(input: &Input<'_>) -> io::Result<bool> {
    let mut file = input.file;
    file.seek(SeekFrom::End(-2))?;
    let mut end = [0; 2];
    file.read_exact(&mut end)?;
    if end == [0xFF, 0xD9] {
        return Ok(true);
    }
    // Cameras and editors append things of their own.
    file.rewind()?;
    jpeg::has_end(BufReader::new(input.watched()))
}
