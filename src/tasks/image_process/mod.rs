//! Resizes an image and writes it in another format.
//!
//! The steps: [`header`] computes the memory needed, [`load`] decodes, [`resize`] resamples,
//! [`encode`] converts and writes.
//!
//! Their helpers: [`input`] reads the file and explains failures, [`probe`] inspects it without
//! decoding, [`metadata`] finds orientation and profile, [`mod@fit`] keeps proportions, and
//! [`mod@format`] lists the outputs. Where the image crate falls short, [`jpeg`] decodes files that
//! it misreads, [`wide`] decodes samples that it has no pixel type for, [`stripes`] resizes a PNG
//! while decoding it, and [`mod@png`] and [`mod@gif`] bound the memory and time that it does not.

mod decoder;
mod encode;
mod fit;
mod format;
mod gif;
mod header;
mod input;
mod jpeg;
mod load;
mod metadata;
mod png;
mod probe;
mod resize;
mod stripes;
#[cfg(test)]
mod tests;
mod wide;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use self::fit::{Fit, Plan};
use self::format::Format;
use self::header::Header;
use self::input::Input;
use crate::task::{
    InvalidParameters, Paths, ReservedMemory, Task, TaskContext, TaskError, TaskResult, async_trait,
};

/// Longest side of an image, input or output.
const MAX_SIDE: u32 = 65_535;

/// Most pixels of an image, input or output: enough for the largest cameras.
const MAX_PIXELS: u64 = 200_000_000;

/// Most bytes of an image in memory: enough for [`MAX_PIXELS`] of 8-bit RGBA.
///
/// A task holds up to two images, or one and the buffers of its decoder or encoder, which can be
/// larger still. [`header`] computes the sum, which is reserved from a budget shared by all tasks.
const MAX_BYTES: u64 = 1 << 30;

/// Error of an image whose parts do not fit together.
const CONTRADICTION: &str = "its headers disagree on its size or colours";

/// Resizes an image to `width` x `height` pixels and writes it in another format.
///
/// Reads JPEG, PNG, WebP, TIFF, BMP and GIF, recognized by content, and applies the EXIF
/// orientation; `original_size` in the result is the upright size. Of several pages or frames it
/// uses the first; `frames` is their number. Resampling is Lanczos. PNG and TIFF keep 16 bits per
/// sample, the other formats are scaled to 8. TIFF samples that are floating-point, signed, or
/// integers of 32 or 64 bits are scaled to 16 bits: the least becomes black, the greatest white
/// (NaN becomes black), and `scaled_from` in the result holds these two. Only 32-bit floating-point
/// colours written as TIFF stay unscaled. Transparency is kept, but JPEG blends it with white, and
/// GIF has only full transparency (and 256 colours). WebP is lossless. Images above 200 megapixels
/// or 65535 pixels per side are refused. Colour profiles above 16 MB are dropped.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageProcessTask {
    /// Width of the new image, in pixels.
    #[schemars(range(min = 1, max = MAX_SIDE))]
    width: u32,
    /// Height of the new image, in pixels.
    #[schemars(range(min = 1, max = MAX_SIDE))]
    height: u32,
    /// Format of the new image. Defaults to the format of the output's extension, or JPEG if there
    /// is none; `format_source` in the result is `parameter`, `extension` or `default`.
    format: Option<Format>,
    /// JPEG quality, from 1 to 100: higher is better and larger, and from 90 on colours keep their
    /// full resolution. Ignored by other formats.
    #[schemars(range(min = 1, max = 100))]
    quality: u8,
    /// Handling of an image whose proportions differ.
    // Absent in tasks stored by versions without this parameter.
    #[serde(default)]
    fit: Fit,
}

#[async_trait]
impl Task for ImageProcessTask {
    fn paths() -> Paths {
        Paths::BOTH
    }

    fn validate(&self) -> Result<(), InvalidParameters> {
        let mut invalid = InvalidParameters::default();
        if let Some(format) = self.format {
            let longest = format.longest_side();
            let expected = format!("at most {longest} for {}", format.name());
            invalid.expect("width", self.width <= longest, &*expected);
            invalid.expect("height", self.height <= longest, &*expected);
        }
        invalid.expect(
            "height",
            u64::from(self.width) * u64::from(self.height) <= MAX_PIXELS,
            format!("at most {} at this width", MAX_PIXELS / u64::from(self.width)),
        );
        invalid.into_result()
    }

    async fn execute(self: Box<Self>, ctx: TaskContext) -> TaskResult {
        let task = *self;
        ctx.update_progress(10.0, "Loading image");
        let needed = ctx.run_blocking(move |ctx| task.memory(ctx)).await?;
        let memory = ctx.reserve_memory(needed).await?;
        ctx.run_blocking(move |ctx| task.process(ctx, &memory)).await
    }
}

impl ImageProcessTask {
    /// Bytes of memory needed to process the input.
    fn memory(&self, ctx: &TaskContext) -> Result<u64, TaskError> {
        let file = ctx.open_input()?;
        let input = Input::new(ctx, &file);
        let needed = Header::read(&input)?.memory(self, self.format(ctx).0);
        tracing::debug!(needed, "read the header");
        Ok(needed)
    }

    fn process(&self, ctx: &TaskContext, memory: &ReservedMemory) -> TaskResult {
        let (format, source) = self.format(ctx);
        let file = ctx.open_input()?;
        let input = Input::new(ctx, &file);
        let header = Header::read(&input)?;
        if header.memory(self, format) > memory.bytes() {
            return Err(input.changed());
        }
        let picture = load::load(&input, &header, format, |size| self.plan(size))?;
        let (width, height) = picture.original_size;
        tracing::debug!(width, height, "loaded image");
        let new_size = picture.new_size;
        let longest = format.longest_side();
        if new_size.0.max(new_size.1) > longest {
            let (format, (width, height)) = (format.name(), new_size);
            return Err(TaskError::permanent(format!(
                "a new size of {width}x{height} exceeds the limit of {format}, {longest} pixels per side"
            )));
        }

        ctx.check_cancelled()?;
        ctx.update_progress(50.0, format!("Resizing to {}x{}", new_size.0, new_size.1));
        let resized = resize::resize(ctx, picture.pixels, picture.orientation, new_size)?;

        ctx.check_cancelled()?;
        ctx.update_progress(75.0, format!("Converting to {}", format.name()));
        let converted = encode::convert(resized, format);

        ctx.check_cancelled()?;
        ctx.update_progress(90.0, "Saving output");
        let output = ctx.create_output()?;
        let length =
            encode::encode(ctx, &converted, picture.icc_profile, (format, self.quality), output)?;

        let mut result = json!({
            "message": "Image processed successfully",
            "input_file": ctx.input_file_path(),
            "output_file": ctx.output_file_path(),
            "original_size": picture.original_size,
            "new_size": new_size,
            "format": format.name(),
            "format_source": source,
            "frames": picture.frames,
            "file_size_bytes": length,
        });
        if let Some(from) = picture.scaled_from {
            result["scaled_from"] = json!(from);
        }
        Ok(result)
    }

    /// Format of the output, and the source of that choice.
    fn format(&self, ctx: &TaskContext) -> (Format, &'static str) {
        Format::choose(self.format, ctx.output_file_path().unwrap_or_default())
    }

    /// `size` is the upright size of the input.
    fn plan(&self, size: (u32, u32)) -> Plan {
        self.fit.plan(size, (self.width, self.height))
    }
}
