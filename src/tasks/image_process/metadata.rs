//! The metadata to keep: orientation and colour profile. The rest (text, comments, XMP) is not even
//! read where that can be avoided.

use std::io::{Read, Seek};

use image::metadata::Orientation;
use image::{ImageDecoder, ImageFormat};
use image_webp::WebPDecoder;
use tiff::tags::Tag;

use super::input::Input;

/// Largest colour profile to keep, in bytes: the most that fits into a JPEG. Profiles of cameras and
/// printers have a few kilobytes to a few megabytes. Larger ones are dropped, and the image is kept.
pub(super) const MAX_PROFILE_BYTES: usize = 255 * 65_519;

/// Orientation and profile of an image, if readable. `decoder` has read the header.
pub(super) fn read(
    input: &Input<'_>,
    format: ImageFormat,
    decoder: Option<&mut (dyn ImageDecoder + '_)>,
) -> (Orientation, Option<Vec<u8>>) {
    let (orientation, profile) = match (format, decoder) {
        (ImageFormat::WebP, _) => webp(input).unwrap_or_default(),
        (ImageFormat::Tiff, _) => tiff(input).unwrap_or_default(),
        (_, Some(decoder)) => (decoder.orientation().ok(), decoder.icc_profile().ok().flatten()),
        (_, None) => (None, None),
    };
    let profile = profile.filter(|profile| profile.len() <= MAX_PROFILE_BYTES);
    (orientation.unwrap_or(Orientation::NoTransforms), profile)
}

/// The image crate would trust the lengths in the file.
fn webp(input: &Input<'_>) -> Option<(Option<Orientation>, Option<Vec<u8>>)> {
    let mut decoder = WebPDecoder::new(input.reader().ok()?).ok()?;
    decoder.set_memory_limit(MAX_PROFILE_BYTES);
    let exif = decoder.exif_metadata().ok().flatten();
    let orientation = exif.and_then(|exif| Orientation::from_exif_chunk(&exif));
    Some((orientation, decoder.icc_profile().ok().flatten()))
}

/// The image crate would allocate 32 bytes for each byte of the profile.
fn tiff(input: &Input<'_>) -> Option<(Option<Orientation>, Option<Vec<u8>>)> {
    let mut decoder = tiff::decoder::Decoder::new(input.reader().ok()?).ok()?;
    let orientation = decoder.find_tag_unsigned::<u8>(Tag::Orientation).ok().flatten();
    Some((orientation.and_then(Orientation::from_exif), tiff_profile(&mut decoder)))
}

fn tiff_profile(decoder: &mut tiff::decoder::Decoder<impl Read + Seek>) -> Option<Vec<u8>> {
    let mut tags = decoder.image_ifd();
    let length = usize::try_from(tags.directory().get(Tag::IccProfile)?.count()).ok()?;
    let mut profile = vec![0; Some(length).filter(|&length| length <= MAX_PROFILE_BYTES)?];
    let read = tags.find_tag_bytes(Tag::IccProfile, &mut profile, 0).ok()??;
    (read == length).then_some(profile)
}
