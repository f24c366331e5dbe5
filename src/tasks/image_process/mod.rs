//! Resizes an image and writes it in another format.
//!
//! One job a file: [`header`] tells how much memory it takes, [`load`] decodes, [`resize`] resamples,
//! [`encode`] converts and writes. [`input`] reads the file and explains what is wrong with it, [`probe`]
//! looks at it without decoding, [`metadata`] finds orientation and profile, [`jpeg`] decodes what the
//! image crate misreads and [`wide`] what it has no pixels for, [`mod@png`] and [`mod@gif`] do what that crate
//! does in one go, [`stripes`] resizes a PNG while it is decoded, [`mod@fit`] keeps proportions, and
//! [`mod@format`] names the outputs.

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
use self::format::{Format, Target};
use self::header::Header;
use self::input::Input;
use crate::task::{
    InvalidParameters, Paths, ReservedMemory, Task, TaskContext, TaskError, TaskResult, async_trait,
};

/// Longest side of an image, read or written.
const MAX_SIDE: u32 = 65_535;

/// Most pixels of an image, read or written: those of the largest cameras.
const MAX_PIXELS: u64 = 200_000_000;

/// Most bytes of an image in memory: enough for [`MAX_PIXELS`] of 8-bit RGBA.
///
/// A task holds two images at most, or one and what its decoder or encoder needs, which can be as much
/// again and more. [`header`] knows how much; all tasks together have a budget for it.
const MAX_BYTES: u64 = 1 << 30;

/// Resizes an image to `width` x `height` pixels and writes it in another format.
///
/// Reads JPEG, PNG, WebP, TIFF, BMP and GIF, told apart by content, and turns the image upright if
/// its metadata (EXIF) says so; `original_size` in the result is that of the upright image. Of a
/// file with several pages or frames the first is used, and `frames` tells how many there are.
/// Resampling is Lanczos. 16 bits a sample are kept in PNG and TIFF and scaled to 8 in the others.
/// TIFFs with floating-point samples or integers of 32 or 64 bits or with a sign are scaled to 16 bits:
/// the least sample becomes black, the greatest white, and `scaled_from` in the result tells these two
/// (NaN becomes black). Only colours in 32-bit floating point that are written as TIFF stay as they are.
/// Transparency is kept, but JPEG shows the image on white and GIF knows only all or nothing (and
/// 256 colours). WebP is lossless.
/// Images of more than 200 megapixels or 65535 pixels on a side are refused. Colour profiles of more
/// than 16 MB are left out.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageProcessTask {
    /// Width of the new image, in pixels.
    #[schemars(range(min = 1, max = MAX_SIDE))]
    width: u32,
    /// Height of the new image, in pixels.
    #[schemars(range(min = 1, max = MAX_SIDE))]
    height: u32,
    /// Format of the new image. Without one the extension of the output file decides, and where that is
    /// none of a format's the image is a JPEG; `format_source` in the result is `parameter`, `extension` or
    /// `default`.
    format: Option<Format>,
    /// Quality of a JPEG, from 1 to 100: higher is better and larger, and from 90 on colours have
    /// full resolution. The other formats ignore it.
    #[schemars(range(min = 1, max = 100))]
    quality: u8,
    /// What happens to an image of other proportions.
    // Tasks that were stored before there was a choice have none.
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
            let longest = format.longest_side(MAX_SIDE);
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
    /// Bytes that it takes to process the input.
    fn memory(&self, ctx: &TaskContext) -> Result<u64, TaskError> {
        let file = ctx.open_input()?;
        let input = Input::new(ctx, &file);
        let needed = Header::read(&input)?.memory(self, self.target(ctx).format);
        input.check_memory(needed)?;
        tracing::debug!(needed, "read the header");
        Ok(needed)
    }

    fn process(&self, ctx: &TaskContext, memory: &ReservedMemory) -> TaskResult {
        let Target { format, source } = self.target(ctx);
        let file = ctx.open_input()?;
        let input = Input::new(ctx, &file);
        let header = Header::read(&input)?;
        if header.memory(self, format) > memory.bytes() {
            return Err(input.changed());
        }
        let picture = load::load(&input, &header, format, |size| self.plan(size))?;
        let original_size = picture.upright_size();
        tracing::debug!(width = original_size.0, height = original_size.1, "loaded image");
        let new_size = picture.new_size;
        let longest = format.longest_side(MAX_SIDE);
        if new_size.0.max(new_size.1) > longest {
            let (format, (width, height)) = (format.name(), new_size);
            return Err(TaskError::permanent(format!(
                "{format} has room for {longest} pixels on a side, but the new image is {width}x{height}"
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
            "original_size": original_size,
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

    fn target(&self, ctx: &TaskContext) -> Target {
        Target::choose(self.format, ctx.output_file_path().unwrap_or_default())
    }

    /// `size` is that of the upright image.
    fn plan(&self, size: (u32, u32)) -> Plan {
        self.fit.plan(size, (self.width, self.height))
    }
}
