//! Facts from the header of a file: the size of the image, and the memory needed to process it.

use image::metadata::Orientation;
use image::{ColorType, ImageFormat};
use tiff::tags::{CompressionMethod, Tag};

use super::decoder::decoder;
use super::fit::Plan;
use super::format::Format;
use super::input::Input;
use super::metadata::MAX_PROFILE_BYTES;
use super::probe::{is_whole, png_size};
use super::resize::{STRIPE, after_first_pass, turn};
use super::stripes::{narrows, pixel_type};
use super::{ImageProcessTask, MAX_BYTES, jpeg, png, wide};
use crate::task::TaskError;

/// Allowance for copies of a profile, tables and I/O buffers.
const MARGIN: u64 = 3 * MAX_PROFILE_BYTES as u64 + (16 << 20);

/// Header of an image that is neither a bomb nor obviously damaged.
pub(super) struct Header {
    pub(super) format: ImageFormat,
    /// Width and height in the file.
    pub(super) size: (u32, u32),
    /// Pixel type after decoding.
    pub(super) color: ColorType,
    /// `true` if [`stripes`](super::stripes) can decode it.
    pub(super) in_stripes: bool,
    /// `true` for a JPEG that the image crate misreads.
    pub(super) misread: bool,
    /// Layout of a TIFF that has to be decoded by [`wide`].
    pub(super) wide: Option<wide::Layout>,
    /// Bytes the decoder needs in addition to the pixels.
    work: u64,
}

impl Header {
    pub(super) fn read(input: &Input<'_>) -> Result<Self, TaskError> {
        let format = input.format()?;
        // The decoders read the whole JPEG into memory.
        if format == ImageFormat::Jpeg && input.length()? > MAX_BYTES {
            return Err(input.too_much_memory());
        }
        if format == ImageFormat::Png
            && let Some(size) = png_size(input)
        {
            input.check_size(size)?;
        }
        if !is_whole(input, format)? {
            return Err(input.truncated());
        }
        let mut header = match format {
            ImageFormat::Jpeg => Self::of_jpeg(input)?,
            _ => Self::of_decoder(input, format)?,
        };
        input.check_size(header.size)?;
        let unpacked = header.wide.as_ref().map_or(0, |wide| wide.bytes);
        if header.pixel_bytes(header.size).max(unpacked) > MAX_BYTES {
            return Err(input.too_much_memory());
        }
        header.work += match format {
            ImageFormat::WebP => webp_work(input, pixel_count(header.size))?,
            ImageFormat::Tiff => tiff_work(input, &header)?,
            // A frame smaller than the image is decoded separately.
            ImageFormat::Gif => header.pixel_bytes(header.size),
            _ => 0,
        };
        Ok(header)
    }

    fn of_jpeg(input: &Input<'_>) -> Result<Self, TaskError> {
        let layout = jpeg::Layout::read(input.reader()?);
        let layout = layout.map_err(|error| input.unreadable(&error))?;
        let layout = layout.map_err(|problem| input.damaged(&problem))?;
        let color = if layout.colors == 1 { ColorType::L8 } else { ColorType::Rgb8 };
        // The decoder holds the file twice while it reads it.
        let work = 2 * input.length()? + layout.work;
        let jpeg::Layout { size, misread, .. } = layout;
        let (format, in_stripes, wide) = (ImageFormat::Jpeg, false, None);
        Ok(Self { format, size, color, in_stripes, misread, wide, work })
    }

    fn of_decoder(input: &Input<'_>, format: ImageFormat) -> Result<Self, TaskError> {
        let wide = match format {
            ImageFormat::Tiff => wide::Layout::read(input)?,
            _ => None,
        };
        let (size, color) = match &wide {
            Some(wide) => (wide.size, wide.color),
            None => {
                let decoder = decoder(input, format)?;
                (decoder.dimensions(), decoder.color_type())
            }
        };
        let in_stripes = format == ImageFormat::Png && pixel_type(&png::open(input)?).is_some();
        Ok(Self { format, size, color, in_stripes, misread: false, wide, work: 0 })
    }

    fn pixel_bytes(&self, size: (u32, u32)) -> u64 {
        pixel_count(size) * u64::from(self.color.bytes_per_pixel())
    }

    /// Peak memory in bytes while the task turns this image into that format.
    pub(super) fn memory(&self, task: &ImageProcessTask, format: Format) -> u64 {
        // The orientation is not known yet.
        let orientations = [Orientation::NoTransforms, Orientation::Rotate90];
        let needed = orientations.map(|orientation| {
            let plan = task.plan(turn(self.size, orientation));
            self.to_resize(orientation, plan).max(self.to_write(plan.new, format))
        });
        needed.into_iter().max().unwrap_or_default() + MARGIN
    }

    fn to_resize(&self, orientation: Orientation, plan: Plan) -> u64 {
        let source = self.pixel_bytes(self.size);
        let target = self.pixel_bytes(plan.new);
        let part = turn(plan.part, orientation);
        let between = after_first_pass(part, orientation, plan.new);
        let is_whole = part == self.size;
        let narrowed = self.in_stripes && is_whole && narrows(self.size, between);
        let between = self.pixel_bytes(between);
        let first_pass = if narrowed {
            between + self.pixel_bytes((self.size.0, STRIPE.min(self.size.1)))
        } else {
            let part = self.pixel_bytes(part);
            let cut = if is_whole { 0 } else { source + part };
            (source + self.work).max(cut).max(part + between)
        };
        // Turning an image on its side takes a copy.
        first_pass.max(between + target).max(2 * target)
    }

    fn to_write(&self, new: (u32, u32), format: Format) -> u64 {
        let pixels = pixel_count(new);
        let converted = match self.color {
            ColorType::La16 => 8 * pixels,
            color => u64::from(color.bytes_per_pixel()).max(4) * pixels,
        };
        let encoded = match format {
            // A transformed copy of the pixels, and the file.
            Format::WebP => converted + 8 * pixels,
            // The palette indices, and the file in a growing buffer.
            Format::Gif => converted + 4 * pixels,
            Format::Jpeg | Format::Png | Format::Tiff | Format::Bmp => converted,
        };
        (self.pixel_bytes(new) + converted).max(encoded)
    }
}

fn pixel_count((width, height): (u32, u32)) -> u64 {
    u64::from(width) * u64::from(height)
}

/// Lossless data is decoded to four bytes a pixel. Lossy data goes through planes, and its alpha is
/// lossless data; a frame of an animation is decoded separately.
fn webp_work(input: &Input<'_>, pixels: u64) -> Result<u64, TaskError> {
    let decoder = image_webp::WebPDecoder::new(input.reader()?);
    let Ok(mut decoder) = decoder else { return Ok(0) };
    let work = match (decoder.is_lossy(), decoder.has_alpha() || decoder.is_animated()) {
        (true, true) => 8 * pixels,
        (true, false) => 2 * pixels,
        (false, _) => 6 * pixels,
    };
    Ok(work + input.length()?)
}

/// Pixels are decoded, then copied. CMYK takes a third more before it is RGB. Each strip or tile of
/// JPEG data is decoded separately.
fn tiff_work(input: &Input<'_>, header: &Header) -> Result<u64, TaskError> {
    let unpacked = header.wide.as_ref().map_or(0, |wide| wide.bytes);
    let mut work = (header.pixel_bytes(header.size) * 4 / 3).max(unpacked);
    if let Ok(mut decoder) = tiff::decoder::Decoder::new(input.reader()?) {
        let compression = decoder.find_tag_unsigned(Tag::Compression).ok().flatten();
        if compression == Some(CompressionMethod::ModernJPEG.to_u16()) {
            let (width, height) = decoder.chunk_dimensions();
            let part = (width.min(header.size.0), height.min(header.size.1));
            // Samples and coefficients, as in `jpeg::Layout::read`.
            work += pixel_count(part) * 4 * 3;
        }
    }
    Ok(work)
}
