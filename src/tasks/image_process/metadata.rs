//! What is kept of a file beside its pixels: its orientation and its colour profile. The rest (text,
//! comments, XMP) is not even read where that can be helped.

use std::io::{Read, Seek};

use image::metadata::Orientation;
use image::{ImageDecoder, ImageFormat};
use image_webp::WebPDecoder;
use tiff::tags::Tag;

use super::input::Input;

/// Largest colour profile that is kept, in bytes: that of a JPEG, which has room for the least. Those
/// of cameras and printers have a few kilobytes to a few megabytes. What is larger is left out, as a
/// profile is no reason to refuse an image that can be shown without it.
pub(super) const MAX_PROFILE_BYTES: usize = 255 * 65_519;

/// Orientation and profile of an image that `decoder` has read the header of. Neither is worth failing
/// for.
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

/// The image crate would believe the lengths in the file.
fn webp(input: &Input<'_>) -> Option<(Option<Orientation>, Option<Vec<u8>>)> {
    let mut decoder = WebPDecoder::new(input.reader().ok()?).ok()?;
    decoder.set_memory_limit(MAX_PROFILE_BYTES);
    let exif = decoder.exif_metadata().ok().flatten();
    let orientation = exif.and_then(|exif| Orientation::from_exif_chunk(&exif));
    Some((orientation, decoder.icc_profile().ok().flatten()))
}

/// The image crate would take 32 bytes for each one of the profile.
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
