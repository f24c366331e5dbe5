//! What the header of a file tells: the size of the image, and the memory that it takes to decode and
//! resize it.

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageFormat};
use tiff::tags::{CompressionMethod, Tag};

use super::format::Format;
use super::input::Input;
use super::metadata::MAX_PROFILE_BYTES;
use super::probe::{is_whole, png_size};
use super::resize::{STRIPE, after_first_pass};
use super::{ImageProcessTask, MAX_BYTES, jpeg, png, stripes};
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
        Ok(Self { format: ImageFormat::Jpeg, size, color, in_stripes: false, misread, work })
    }

    fn of_decoder(input: &Input<'_>, format: ImageFormat) -> Result<Self, TaskError> {
        let (size, color, in_stripes) = if format == ImageFormat::Png {
            let reader = png::open(|| input.reader(), |error| input.explain(error))?;
            let in_stripes = stripes::pixel_type(&reader).is_some();
            let decoder = png::PngImage(reader);
            (decoder.dimensions(), decoder.color_type(), in_stripes)
        } else {
            let decoder = input.decoder(format)?;
            (decoder.dimensions(), decoder.color_type(), false)
        };
        let mut header = Self { format, size, color, in_stripes, misread: false, work: 0 };
        input.check_size(size)?;
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
    pub(super) fn memory(&self, task: &ImageProcessTask) -> u64 {
        let new = (task.width, task.height);
        let target = self.pixel_bytes(new);
        // Whether it lies on its side is not known yet.
        let resized = [Orientation::NoTransforms, Orientation::Rotate90].map(|orientation| {
            let between = after_first_pass(self.size, orientation, new);
            let narrowed = self.in_stripes && between.0 < self.size.0 && between.1 == self.size.1;
            let between = self.pixel_bytes(between);
            let source = self.pixel_bytes(self.size);
            let first_pass = if narrowed {
                between + self.pixel_bytes((self.size.0, STRIPE.min(self.size.1)))
            } else {
                (source + self.work).max(source + between)
            };
            first_pass.max(between + target)
        });
        let pixels = u64::from(task.width) * u64::from(task.height);
        let converted = match self.color {
            ColorType::La16 => 8 * pixels,
            color => u64::from(color.bytes_per_pixel()).max(4) * pixels,
        };
        let encoded = match task.format {
            // The pixels in another form, and the file.
            Format::WebP => converted + 8 * pixels,
            // The pixels by number, and the file, which grows by doubling.
            Format::Gif => converted + 4 * pixels,
            Format::Jpeg | Format::Png | Format::Tiff | Format::Bmp => converted,
        };
        // Turned on its side an image is copied.
        let steps = resized.into_iter().chain([2 * target, target + converted, encoded]);
        steps.max().unwrap_or_default() + MARGIN
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
    let mut work = header.pixel_bytes(header.size) * 4 / 3;
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
