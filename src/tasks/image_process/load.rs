//! From a file to pixels.

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder};

use super::header::Header;
use super::input::Input;
use super::probe::count_frames;
use super::resize::{after_first_pass, swaps_sides};
use super::stripes::narrow;
use super::{jpeg, metadata, png};
use crate::task::TaskError;

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
pub(super) fn load(
    input: &Input<'_>,
    header: &Header,
    new: (u32, u32),
) -> Result<Picture, TaskError> {
    let &Header { format, size, .. } = header;
    let frames = count_frames(input, format)?;
    input.ctx.check_cancelled()?;
    let mut decoder = input.decoder(format)?;
    if (decoder.dimensions(), decoder.color_type()) != (size, header.color) {
        return Err(input.damaged(&"it contradicts itself about its size or colours"));
    }
    let (orientation, icc_profile) = metadata::read(input, format, &mut decoder);
    let (width, height) = after_first_pass(size, orientation, new);
    let narrowed = if header.in_stripes && width < size.0 && height == size.1 {
        narrowed_png(input, width)?
    } else {
        None
    };
    let pixels = match narrowed {
        Some(pixels) => pixels,
        None => pixels(input, header, decoder)?,
    };
    Ok(Picture { pixels, size, orientation, icc_profile, frames })
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
