//! GIF by the `gif` crate, in pieces: with its own search for 256 colours, a large image would run
//! for minutes without a check for cancellation.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io::Write;

use color_quant::NeuQuant;
use gif::{Encoder, Frame};
use image::DynamicImage;

use crate::task::{TaskContext, TaskError};

/// Number of colours in the palette of a GIF.
const COLORS: usize = 256;

/// Sampling factor of the colour search, from 1 (every pixel) to 30. The gif crate recommends 10.
const SPEED: i32 = 10;

/// Number of evenly spread pixels given to the colour search. More do not change the result.
const MAX_SAMPLE: usize = 4_000_000;

/// Pixels between two checks for cancellation.
const PIECE: usize = 1 << 18;

type Color = [u8; 4];

/// The only transparent colour of an image converted for GIF.
const TRANSPARENT: Color = [0; 4];

/// Writes an RGB or RGBA image whose pixels are opaque or [`TRANSPARENT`].
pub(super) fn write(
    ctx: &TaskContext,
    image: &DynamicImage,
    output: impl Write,
) -> Result<(), TaskError> {
    let pixels = Pixels { bytes: image.as_bytes(), channels: image.color().channel_count().into() };
    let colors = pixels.colors(ctx)?;
    let transparent = colors.get(&TRANSPARENT);
    let (palette, buffer, transparent) = if colors.len() <= COLORS {
        let indices: HashMap<_, _> = colors.iter().copied().zip(0..=u8::MAX).collect();
        let index = |color: Color| indices.get(&color).copied().unwrap_or_default();
        let palette = colors.iter().flat_map(|&[red, green, blue, _]| [red, green, blue]);
        (palette.collect(), pixels.map(ctx, index)?, transparent.map(|&color| index(color)))
    } else {
        let quantizer = NeuQuant::new(SPEED, COLORS, &pixels.sample());
        let index = |color: Color| quantizer.index_of(&color) as u8;
        let transparent = transparent.map(|&color| index(color));
        (quantizer.color_map_rgb(), pixels.map(ctx, index)?, transparent)
    };
    let (width, height) = (u16::try_from(image.width())?, u16::try_from(image.height())?);
    let (palette, buffer) = (Some(palette), Cow::Owned(buffer));
    let frame = Frame { width, height, buffer, palette, transparent, ..Frame::default() };
    let mut encoder = Encoder::new(output, width, height, &[])?;
    encoder.write_frame(&frame)?;
    encoder.into_inner()?;
    Ok(())
}

struct Pixels<'a> {
    bytes: &'a [u8],
    channels: usize,
}

impl<'a> Pixels<'a> {
    fn pieces(&self) -> impl Iterator<Item = impl Iterator<Item = Color> + use<'a>> + use<'a> {
        let channels = self.channels;
        let pieces = self.bytes.chunks(PIECE * channels);
        pieces.map(move |piece| piece.chunks_exact(channels).map(color))
    }

    /// All colours, or more than [`COLORS`] of them. Contains [`TRANSPARENT`] if any pixel is.
    fn colors(&self, ctx: &TaskContext) -> Result<BTreeSet<Color>, TaskError> {
        let mut colors = BTreeSet::new();
        for piece in self.pieces() {
            ctx.check_cancelled()?;
            for color in piece {
                if colors.len() <= COLORS || color == TRANSPARENT {
                    colors.insert(color);
                }
            }
        }
        Ok(colors)
    }

    /// RGBA samples of evenly spread pixels.
    fn sample(&self) -> Vec<u8> {
        let step = (self.bytes.len() / self.channels).div_ceil(MAX_SAMPLE);
        let pixels = self.bytes.chunks_exact(self.channels).step_by(step.max(1));
        pixels.flat_map(color).collect()
    }

    fn map(&self, ctx: &TaskContext, index: impl Fn(Color) -> u8) -> Result<Vec<u8>, TaskError> {
        let mut indices = Vec::with_capacity(self.bytes.len() / self.channels);
        for piece in self.pieces() {
            ctx.check_cancelled()?;
            indices.extend(piece.map(&index));
        }
        Ok(indices)
    }
}

fn color(pixel: &[u8]) -> Color {
    match *pixel {
        [red, green, blue, alpha] => [red, green, blue, alpha],
        [red, green, blue] => [red, green, blue, 255],
        _ => TRANSPARENT,
    }
}
