//! From a file to pixels.

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder};

use super::fit::Plan;
use super::format::Format;
use super::header::Header;
use super::input::Input;
use super::probe::count_frames;
use super::resize::{after_first_pass, turn};
use super::stripes::{narrow, narrows};
use super::wide::{self, Scaled};
use super::{jpeg, metadata, png};
use crate::task::TaskError;

/// The first image of a file, as it is stored there.
pub(super) struct Picture {
    /// The pixels that are used; of some images after the first pass of [`resize`](super::resize).
    pub(super) pixels: DynamicImage,
    /// The size that they are to get upright.
    pub(super) new_size: (u32, u32),
    /// The samples that became black and white, if the samples were scaled.
    pub(super) scaled_from: Option<[f64; 2]>,
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
        turn(self.size, self.orientation)
    }
}

/// Decodes the first image of the input for an output of this format. `plan` takes the size of the upright image.
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
        None => Some(input.decoder(format)?),
        Some(_) => None,
    };
    if let Some(decoder) = &decoder
        && (decoder.dimensions(), decoder.color_type()) != (size, header.color)
    {
        return Err(input.damaged(&"it contradicts itself about its size or colours"));
    }
    let (orientation, icc_profile) = metadata::read(input, format, decoder.as_deref_mut());
    let Plan { part, new } = plan(turn(size, orientation));
    let part = turn(part, orientation);
    let between = after_first_pass(part, orientation, new);
    let narrowed = if header.in_stripes && part == size && narrows(size, between) {
        narrowed_png(input, between.0)?
    } else {
        None
    };
    let Scaled { pixels, from } = match (narrowed, &header.wide, decoder) {
        (Some(pixels), ..) => Scaled { pixels, from: None },
        (None, Some(layout), _) => wide::decode(input, layout)?,
        (None, None, Some(decoder)) => {
            let pixels = pixels(input, header, decoder)?;
            match output.has_floats() {
                true => Scaled { pixels, from: None },
                false => wide::narrow(input.ctx, pixels)?,
            }
        }
        (None, None, None) => unreachable!("an image that is not wide has a decoder"),
    };
    let pixels = match part == size {
        true => pixels,
        false => {
            let (left, top) = ((size.0 - part.0) / 2, (size.1 - part.1) / 2);
            pixels.crop_imm(left, top, part.0, part.1)
        }
    };
    Ok(Picture { pixels, new_size: new, scaled_from: from, size, orientation, icc_profile, frames })
}

fn pixels(
    input: &Input<'_>,
    header: &Header,
    decoder: Box<dyn ImageDecoder + '_>,
) -> Result<DynamicImage, TaskError> {
    if !header.misread {
        return DynamicImage::from_decoder(decoder).map_err(|error| input.explain(error));
    }
    // It has the file in memory.
    drop(decoder);
    jpeg::decode(input.reader()?, header.size).map_err(|error| match error {
        jpeg_decoder::Error::Io(error) => input.unreadable(&error),
        other => input.damaged(&other),
    })
}

/// The image at this width; `None` if it is not one for [`narrow`].
fn narrowed_png(input: &Input<'_>, width: u32) -> Result<Option<DynamicImage>, TaskError> {
    let explain = |error| input.explain(error);
    let mut reader = png::open(|| input.reader(), explain)?;
    narrow(input.ctx, &mut reader, width, |error| explain(png::image_error(error)))
}
