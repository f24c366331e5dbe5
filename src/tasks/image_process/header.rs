//! What the header of a file tells: the size of the image, and the memory that it takes to decode and
//! resize it.

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageFormat};
use tiff::tags::{CompressionMethod, Tag};

use super::fit::Plan;
use super::format::Format;
use super::input::Input;
use super::metadata::MAX_PROFILE_BYTES;
use super::probe::{is_whole, png_size};
use super::resize::{STRIPE, after_first_pass, turn};
use super::stripes::narrows;
use super::{ImageProcessTask, MAX_BYTES, jpeg, png, stripes, wide};
use crate::task::TaskError;

/// For a few copies of a profile, for tables, and for the pieces that files are read and written in.
const MARGIN: u64 = 3 * MAX_PROFILE_BYTES as u64 + (16 << 20);

/// The header of an image that is neither a bomb nor obviously damaged.
pub(super) struct Header {
    pub(super) format: ImageFormat,
    /// Width and height in the file.
    pub(super) size: (u32, u32),
    /// What the pixels are when they are decoded.
    pub(super) color: ColorType,
    /// Whether [`stripes`] can decode it.
    pub(super) in_stripes: bool,
    /// Whether it is a JPEG that the image crate misreads.
    pub(super) misread: bool,
    /// The samples of a TIFF that [`wide`] decodes.
    pub(super) wide: Option<wide::Layout>,
    /// Bytes that the decoder takes beside the pixels.
    work: u64,
}

impl Header {
    pub(super) fn read(input: &Input<'_>) -> Result<Self, TaskError> {
        let format = input.format()?;
        // A JPEG is read into memory as it is.
        if format == ImageFormat::Jpeg && input.length()? > MAX_BYTES {
            return Err(input.too_much_memory());
        }
        if format == ImageFormat::Png
            && let Some(size) = png_size(input.file)
        {
            input.check_size(size)?;
        }
        if !is_whole(input, format).map_err(|error| input.unreadable(&error))? {
            return Err(input.truncated());
        }
        let header = match format {
            ImageFormat::Jpeg => Self::of_jpeg(input)?,
            _ => Self::of_decoder(input, format)?,
        };
        input.check_size(header.size)?;
        if header.pixel_bytes(header.size) > MAX_BYTES {
            return Err(input.too_much_memory());
        }
        Ok(header)
    }

    fn of_jpeg(input: &Input<'_>) -> Result<Self, TaskError> {
        let layout = jpeg::Layout::read(input.reader()?);
        let layout = layout.map_err(|error| input.unreadable(&error))?;
        let layout = layout.map_err(|problem| input.damaged(&problem))?;
        let color = if layout.colors == 1 { ColorType::L8 } else { ColorType::Rgb8 };
        // The file, and once more while it is read.
        let work = 2 * input.length()? + layout.work();
        let jpeg::Layout { size, misread, .. } = layout;
        let (format, in_stripes, wide) = (ImageFormat::Jpeg, false, None);
        Ok(Self { format, size, color, in_stripes, misread, wide, work })
    }

    fn of_decoder(input: &Input<'_>, format: ImageFormat) -> Result<Self, TaskError> {
        let wide = match format {
            ImageFormat::Tiff => wide::Layout::read(input)?,
            _ => None,
        };
        let (size, color, in_stripes) = if let Some(wide) = &wide {
            (wide.size, wide.color, false)
        } else if format == ImageFormat::Png {
            let reader = png::open(|| input.reader(), |error| input.explain(error))?;
            let in_stripes = stripes::pixel_type(&reader).is_some();
            let decoder = png::PngImage(reader);
            (decoder.dimensions(), decoder.color_type(), in_stripes)
        } else {
            let decoder = input.decoder(format)?;
            (decoder.dimensions(), decoder.color_type(), false)
        };
        let mut header = Self { format, size, color, in_stripes, misread: false, wide, work: 0 };
        input.check_size(size)?;
        if header.wide.as_ref().is_some_and(|wide| wide.bytes > MAX_BYTES) {
            return Err(input.too_much_memory());
        }
        let pixels = u64::from(size.0) * u64::from(size.1);
        header.work = match format {
            ImageFormat::WebP => webp_work(input, pixels)?,
            ImageFormat::Tiff => tiff_work(input, &header)?,
            // A frame that is smaller than the image.
            ImageFormat::Gif => header.pixel_bytes(size),
            _ => 0,
        };
        Ok(header)
    }

    fn pixel_bytes(&self, (width, height): (u32, u32)) -> u64 {
        u64::from(width) * u64::from(height) * u64::from(self.color.bytes_per_pixel())
    }

    /// Most bytes that are in use at a time while the image is made into what the task asks for.
    pub(super) fn memory(&self, task: &ImageProcessTask, format: Format) -> u64 {
        // Whether it lies on its side is not known yet.
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
        // Turned on its side an image is copied.
        first_pass.max(between + target).max(2 * target)
    }

    fn to_write(&self, new: (u32, u32), format: Format) -> u64 {
        let pixels = u64::from(new.0) * u64::from(new.1);
        let converted = match self.color {
            ColorType::La16 => 8 * pixels,
            color => u64::from(color.bytes_per_pixel()).max(4) * pixels,
        };
        let encoded = match format {
            // The pixels in another form, and the file.
            Format::WebP => converted + 8 * pixels,
            // The pixels by number, and the file, which grows by doubling.
            Format::Gif => converted + 4 * pixels,
            Format::Jpeg | Format::Png | Format::Tiff | Format::Bmp => converted,
        };
        (self.pixel_bytes(new) + converted).max(encoded)
    }
}

/// Lossless data is decoded to four bytes a pixel. Lossy data is in planes before it is pixels, and its
/// transparency is lossless data; a frame of an animation is decoded apart.
fn webp_work(input: &Input<'_>, pixels: u64) -> Result<u64, TaskError> {
    let decoder = image_webp::WebPDecoder::new(input.reader()?);
    let Ok(mut decoder) = decoder else { return Ok(0) };
    let planes = 2 * pixels;
    let work = match (decoder.is_lossy(), decoder.has_alpha() || decoder.is_animated()) {
        (true, true) => planes + 6 * pixels,
        (true, false) => planes,
        (false, _) => 4 * pixels + 2 * pixels,
    };
    Ok(work + input.length()?)
}

/// Pixels are decoded, then copied. CMYK takes a third more before it is RGB. A strip or tile in JPEG is
/// decoded by itself.
fn tiff_work(input: &Input<'_>, header: &Header) -> Result<u64, TaskError> {
    let unpacked = header.wide.as_ref().map_or(0, |wide| wide.bytes);
    let mut work = (header.pixel_bytes(header.size) * 4 / 3).max(unpacked);
    if let Ok(mut decoder) = tiff::decoder::Decoder::new(input.reader()?) {
        let compression = decoder.find_tag_unsigned(Tag::Compression).ok().flatten();
        if compression == Some(CompressionMethod::ModernJPEG.to_u16()) {
            let (width, height) = decoder.chunk_dimensions();
            let part = (width.min(header.size.0), height.min(header.size.1));
            // As `Layout::work` has it, with the samples.
            work += u64::from(part.0) * u64::from(part.1) * 4 * 3;
        }
    }
    Ok(work)
}
