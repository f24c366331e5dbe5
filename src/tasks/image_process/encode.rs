//! Encodes the output. Pixels are converted only where the format cannot hold them.

use std::io::{BufWriter, Seek, SeekFrom, Write};

use image::codecs::bmp::BmpEncoder;
use image::codecs::tiff::TiffEncoder;
use image::codecs::webp::WebPEncoder;
use image::{
    ColorType, DynamicImage, ImageBuffer, ImageEncoder, ImageResult, Pixel, Rgba, RgbaImage,
};
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType as JpegColor};

use super::format::Format;
use super::{gif, png};
use crate::task::{TaskContext, TaskError};

/// Converts an image to pixels that the format can hold.
///
/// Reduces 16 bits to 8 where the format has no more, blends transparency with white for JPEG and
/// makes it all or nothing for GIF. Grey with alpha becomes RGBA for TIFF, BMP and GIF.
pub(super) fn convert(image: DynamicImage, format: Format) -> DynamicImage {
    use ColorType::{La8, La16};
    let color = image.color();
    match format {
        Format::Png => image,
        Format::Tiff => match color {
            La8 => image.into_rgba8().into(),
            La16 => image.into_rgba16().into(),
            _ => image,
        },
        Format::WebP => eight_bit(image),
        Format::Bmp => match eight_bit(image) {
            image @ DynamicImage::ImageLumaA8(_) => image.into_rgba8().into(),
            image => image,
        },
        Format::Gif if color.has_alpha() => all_or_nothing(image.into_rgba8()).into(),
        Format::Gif => image.into_rgb8().into(),
        Format::Jpeg => match eight_bit(image) {
            DynamicImage::ImageLumaA8(image) => on_white(image).into_luma8().into(),
            DynamicImage::ImageRgba8(image) => on_white(image).into_rgb8().into(),
            image => image,
        },
    }
}

/// Scales samples of 16 bits to 8 (65535 becomes 255).
fn eight_bit(image: DynamicImage) -> DynamicImage {
    match image {
        DynamicImage::ImageLuma16(_) => image.into_luma8().into(),
        DynamicImage::ImageLumaA16(_) => image.into_luma_alpha8().into(),
        DynamicImage::ImageRgb16(_) => image.into_rgb8().into(),
        DynamicImage::ImageRgba16(_) => image.into_rgba8().into(),
        image => image,
    }
}

/// Blends the colours with white; the alpha is left for the caller to drop.
fn on_white<P: Pixel<Subpixel = u8>>(mut image: ImageBuffer<P, Vec<u8>>) -> DynamicImage
where
    DynamicImage: From<ImageBuffer<P, Vec<u8>>>,
{
    for pixel in image.pixels_mut() {
        let alpha = u32::from(pixel.alpha());
        let blend = |sample| (u32::from(sample) * alpha + 255 * (255 - alpha) + 127) / 255;
        pixel.apply_without_alpha(|sample| blend(sample) as u8);
    }
    image.into()
}

/// Makes each pixel either opaque or transparent. The GIF encoder would show every pixel that is
/// not fully transparent, down to the faintest shadow.
fn all_or_nothing(mut image: RgbaImage) -> RgbaImage {
    for Rgba(pixel) in image.pixels_mut() {
        *pixel = match *pixel {
            [red, green, blue, alpha] if alpha >= 128 => [red, green, blue, 255],
            _ => [0; 4],
        };
    }
    image
}

/// Writes an image converted for this format. Returns the length of the file.
pub(super) fn encode(
    ctx: &TaskContext,
    image: &DynamicImage,
    icc_profile: Option<Vec<u8>>,
    (format, quality): (Format, u8),
    output: impl Write + Seek,
) -> Result<u64, TaskError> {
    let profile = icc_profile.filter(|profile| describes(profile, image.color()));
    // Encoders write a few bytes at a time, and each write to the output takes a lock.
    let mut output = BufWriter::new(output);
    match format {
        Format::Jpeg => write_jpeg(image, profile, quality, &mut output)?,
        Format::Png => png::write(image, profile, &mut output)?,
        Format::WebP => write(WebPEncoder::new_lossless(&mut output), image, profile)?,
        Format::Tiff => write(TiffEncoder::new(&mut output), image, profile)?,
        Format::Bmp => write(BmpEncoder::new(&mut output), image, profile)?,
        Format::Gif => gif::write(ctx, image, &mut output)?,
    }
    output.flush()?;
    Ok(output.seek(SeekFrom::End(0))?)
}

/// Returns whether an ICC profile describes such colours. A CMYK profile does not after conversion.
fn describes(profile: &[u8], color: ColorType) -> bool {
    let space: &[u8] = if color.has_color() { b"RGB " } else { b"GRAY" };
    profile.get(16..20) == Some(space)
}

fn write(
    mut encoder: impl ImageEncoder,
    image: &DynamicImage,
    icc_profile: Option<Vec<u8>>,
) -> ImageResult<()> {
    if let Some(profile) = icc_profile {
        // Fails for formats that cannot hold a profile.
        let _ = encoder.set_icc_profile(profile);
    }
    encoder.write_image(image.as_bytes(), image.width(), image.height(), image.color().into())
}

fn write_jpeg(
    image: &DynamicImage,
    icc_profile: Option<Vec<u8>>,
    quality: u8,
    output: impl Write,
) -> Result<(), TaskError> {
    // The encoder of the image crate is slower and its files are larger. Optimised tables would
    // save 2 or 3 %, but cost up to nine bytes a pixel, and put each component into a separate
    // scan, which some decoders turn into garbage (see `jpeg`).
    let mut encoder = jpeg_encoder::Encoder::new(output, quality);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    if let Some(profile) = icc_profile {
        encoder.add_icc_profile(&profile)?;
    }
    let color = if image.color().has_color() { JpegColor::Rgb } else { JpegColor::Luma };
    let (width, height) = (u16::try_from(image.width())?, u16::try_from(image.height())?);
    Ok(encoder.encode(image.as_bytes(), width, height, color)?)
}
