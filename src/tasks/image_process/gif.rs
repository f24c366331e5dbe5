//! GIF, written with the crate of that name, a piece at a time: the search for 256 colours in a
//! large image would go on for minutes without a look at the task's token.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io::Write;

use color_quant::NeuQuant;
use gif::{Encoder, Frame};
use image::DynamicImage;

use crate::task::{TaskContext, TaskError};

/// Number of colours that a GIF has room for.
const COLORS: usize = 256;

/// Share of the pixels that the search for colours skips, from 1 (nothing) to 30; the advice of the gif
/// crate.
const SPEED: i32 = 10;

/// Most pixels that the search for colours looks at, evenly spread: more do not change the outcome.
const MAX_SAMPLE: usize = 4_000_000;

/// Pixels between two checks for cancellation.
const PIECE: usize = 1 << 18;

type Color = [u8; 4];

/// Writes an image in RGB or RGBA, whose pixels are opaque or transparent.
pub(super) fn write(
    ctx: &TaskContext,
    image: &DynamicImage,
    output: impl Write,
) -> Result<(), TaskError> {
    let pixels = Pixels { bytes: image.as_bytes(), channels: image.color().channel_count().into() };
    let transparent = pixels.find_transparent(ctx)?;
    let (palette, indices, transparent) = match pixels.few_colors(ctx)? {
        Some(colors) => {
            let places: HashMap<_, _> = colors.iter().copied().zip(0..=u8::MAX).collect();
            let index = |color: Color| places.get(&color).copied().unwrap_or_default();
            let palette = colors.iter().flat_map(|&[red, green, blue, _]| [red, green, blue]);
            (palette.collect(), pixels.map(ctx, index)?, transparent.map(index))
        }
        None => {
            let quantizer = NeuQuant::new(SPEED, COLORS, &pixels.sample());
            let index = |color: Color| quantizer.index_of(&color) as u8;
            (quantizer.color_map_rgb(), pixels.map(ctx, index)?, transparent.map(index))
        }
    };
    let (width, height) = (u16::try_from(image.width())?, u16::try_from(image.height())?);
    let mut encoder = Encoder::new(output, width, height, &[])?;
    let buffer = Cow::Owned(indices);
    let palette = Some(palette);
    encoder.write_frame(&Frame {
        width,
        height,
        buffer,
        palette,
        transparent,
        ..Frame::default()
    })?;
    encoder.into_inner()?;
    Ok(())
}

struct Pixels<'a> {
    bytes: &'a [u8],
    channels: usize,
}

impl<'a> Pixels<'a> {
    /// The colours in pieces.
    fn pieces(&self) -> impl Iterator<Item = impl Iterator<Item = Color> + use<'a>> + use<'a> {
        let channels = self.channels;
        let pieces = self.bytes.chunks(PIECE * channels);
        pieces.map(move |piece| piece.chunks_exact(channels).map(color))
    }

    /// A transparent colour; all are the same.
    fn find_transparent(&self, ctx: &TaskContext) -> Result<Option<Color>, TaskError> {
        if self.channels < 4 {
            return Ok(None);
        }
        for mut piece in self.pieces() {
            ctx.check_cancelled()?;
            if let Some(transparent) = piece.find(|&[.., alpha]| alpha == 0) {
                return Ok(Some(transparent));
            }
        }
        Ok(None)
    }

    /// All colours, unless there are too many.
    fn few_colors(&self, ctx: &TaskContext) -> Result<Option<BTreeSet<Color>>, TaskError> {
        let mut colors = BTreeSet::new();
        for piece in self.pieces() {
            ctx.check_cancelled()?;
            for color in piece {
                if colors.insert(color) && colors.len() > COLORS {
                    return Ok(None);
                }
            }
        }
        Ok(Some(colors))
    }

    /// Pixels in RGBA that stand for all.
    fn sample(&self) -> Vec<u8> {
        let step = (self.bytes.len() / self.channels).div_ceil(MAX_SAMPLE);
        let pixels = self.bytes.chunks_exact(self.channels).step_by(step.max(1));
        pixels.flat_map(color).collect()
    }

    fn map(
        &self,
        ctx: &TaskContext,
        index: impl Fn(Color) -> u8 + Copy,
    ) -> Result<Vec<u8>, TaskError> {
        let mut indices = Vec::with_capacity(self.bytes.len() / self.channels);
        for piece in self.pieces() {
            ctx.check_cancelled()?;
            indices.extend(piece.map(index));
        }
        Ok(indices)
    }
}

fn color(pixel: &[u8]) -> Color {
    match *pixel {
        [red, green, blue, alpha] => [red, green, blue, alpha],
        [red, green, blue] => [red, green, blue, 255],
        _ => [0; 4],
    }
}
