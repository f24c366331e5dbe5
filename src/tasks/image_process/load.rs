//! Decodes the input.

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder};

use super::decoder::decoder;
use super::fit::Plan;
use super::format::Format;
use super::header::Header;
use super::input::Input;
use super::probe::count_frames;
use super::resize::{after_first_pass, turn};
use super::stripes::{narrow, narrows};
use super::{CONTRADICTION, jpeg, metadata, wide};
use crate::task::TaskError;

/// The first image of a file, in its stored orientation.
pub(super) struct Picture {
    /// The pixels to use; for some images after the first pass of [`resize`](super::resize).
    pub(super) pixels: DynamicImage,
    /// Upright size of the new image.
    pub(super) new_size: (u32, u32),
    /// The samples that became black and white, if samples were scaled.
    pub(super) scaled_from: Option<[f64; 2]>,
    /// Upright size of the original.
    pub(super) original_size: (u32, u32),
    /// The transform that turns it upright.
    pub(super) orientation: Orientation,
    pub(super) icc_profile: Option<Vec<u8>>,
    /// Number of images in the file.
    pub(super) frames: usize,
}

/// Decodes the first image of the input for this output format. `plan` takes the upright size.
pub(super) fn load(
    input: &Input<'_>,
    header: &Header,
    output: Format,
    plan: impl Fn((u32, u32)) -> Plan,
) -> Result<Picture, TaskError> {
    let &Header { format, size, .. } = header;
    let frames = count_frames(input, format)?;
    input.ctx.check_cancelled()?;
    let mut decoder = match header.wide {
        None => Some(decoder(input, format)?),
        Some(_) => None,
    };
    if let Some(decoder) = &decoder
        && (decoder.dimensions(), decoder.color_type()) != (size, header.color)
    {
        return Err(input.damaged(&CONTRADICTION));
    }
    let (orientation, icc_profile) = metadata::read(input, format, decoder.as_deref_mut());
    let original_size = turn(size, orientation);
    let Plan { part, new: new_size } = plan(original_size);
    let part = turn(part, orientation);
    let between = after_first_pass(part, orientation, new_size);
    let (mut pixels, scaled_from) = match (&header.wide, decoder) {
        (Some(layout), _) => wide::decode(input, layout)?,
        (None, _) if header.in_stripes && part == size && narrows(size, between) => {
            (narrow(input, between.0)?, None)
        }
        (None, Some(decoder)) => {
            let pixels = pixels(input, header, decoder)?;
            match output {
                Format::Tiff => (pixels, None),
                _ => wide::narrow(input.ctx, pixels)?,
            }
        }
        (None, None) => unreachable!("an image that is not wide has a decoder"),
    };
    if part != size {
        let (left, top) = ((size.0 - part.0) / 2, (size.1 - part.1) / 2);
        pixels = pixels.crop_imm(left, top, part.0, part.1);
    }
    Ok(Picture { pixels, new_size, scaled_from, original_size, orientation, icc_profile, frames })
}

fn pixels(
    input: &Input<'_>,
    header: &Header,
    decoder: Box<dyn ImageDecoder + '_>,
) -> Result<DynamicImage, TaskError> {
    if !header.misread {
        return DynamicImage::from_decoder(decoder).map_err(|error| input.explain(error));
    }
    // Frees its copy of the file.
    drop(decoder);
    jpeg::decode(input.reader()?, header.size).map_err(|error| match error {
        jpeg_decoder::Error::Io(error) => input.unreadable(&error),
        other => input.damaged(&other),
    })
}
