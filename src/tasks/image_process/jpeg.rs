//! Parses the markers of a JPEG, and decodes the files that the image crate misreads.
//!
//! Its decoder turns a few valid files into garbage without an error
//! (<https://github.com/etemesi254/zune-image/issues/422>), but is the faster one for all others.

use std::io::{self, BufRead, Read};

use image::{DynamicImage, RgbImage};
use jpeg_decoder::{Decoder, Error, PixelFormat};

/// Frame headers that are not progressive: baseline and extended sequential.
const BASELINE: u8 = 0xC0;
const EXTENDED: u8 = 0xC1;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Limit for the scans of a progressive image; encoders write about ten. The decoder visits the
/// whole image for each scan, however short it is.
const MAX_SCANS: usize = 100;

/// Returns the next marker with its segment. Skips whole segments, so that the end of an embedded
/// thumbnail is not taken for the end of the image.
fn next_segment(jpeg: &mut impl BufRead) -> io::Result<Option<(u8, Vec<u8>)>> {
    loop {
        // Between segments is compressed data, where FF 00 stands for the byte FF.
        jpeg.skip_until(0xFF)?;
        // Any number of FF may pad a marker.
        let marker = jpeg.by_ref().bytes().find(|byte| !matches!(byte, Ok(0xFF))).transpose()?;
        match marker {
            None => return Ok(None),
            // A stuffed byte, or a marker without a segment (restarts and the like).
            Some(0x00 | 0x01 | 0xD0..=0xD8) => {}
            Some(END_OF_IMAGE) => return Ok(Some((END_OF_IMAGE, Vec::new()))),
            Some(marker) => {
                let mut length = [0; 2];
                jpeg.read_exact(&mut length)?;
                let rest = u64::from(u16::from_be_bytes(length)).saturating_sub(2);
                let mut body = Vec::new();
                jpeg.take(rest).read_to_end(&mut body)?;
                return Ok(Some((marker, body)));
            }
        }
    }
}

/// Returns whether the file has an end-of-image marker.
pub(super) fn has_end(mut jpeg: impl BufRead) -> io::Result<bool> {
    while let Some((marker, _)) = next_segment(&mut jpeg)? {
        if marker == END_OF_IMAGE {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Structure of an image, from its markers.
pub(super) struct Layout {
    pub(super) size: (u32, u32),
    /// Number of colour components in the file.
    pub(super) colors: u8,
    /// `true` if the image crate misreads the image, so that [`decode`] has to decode it.
    pub(super) misread: bool,
    /// Bytes a decoder needs in addition to the pixels and the file.
    pub(super) work: u64,
}

impl Layout {
    /// Reads the header. The inner error names the damage.
    pub(super) fn read(mut jpeg: impl BufRead) -> io::Result<Result<Self, &'static str>> {
        let mut frame = None;
        let scan = loop {
            match next_segment(&mut jpeg)? {
                None | Some((END_OF_IMAGE, _)) => return Ok(Err("it has no image data")),
                Some((START_OF_SCAN, body)) => break body,
                // 0xC4, 0xC8 and 0xCC are not frame headers.
                Some((marker @ 0xC0..=0xCF, body)) if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                    if frame.replace((marker, body)).is_some() {
                        return Ok(Err("it has two headers"));
                    }
                }
                Some(_) => {}
            }
        };
        let Some((marker, frame)) = frame else { return Ok(Err("it has no header")) };
        let &[_, a, b, c, d, colors, ..] = frame.as_slice() else {
            return Ok(Err("its header is too short"));
        };
        let size = (u16::from_be_bytes([c, d]).into(), u16::from_be_bytes([a, b]).into());
        let progressive = !matches!(marker, BASELINE | EXTENDED);
        let in_parts = scan.first().is_some_and(|&scanned| scanned < colors);
        let misread = !progressive && (in_parts || grows_finer(&frame));
        let samples = samples(&frame, size);
        let work = if misread {
            // `decode` needs coefficients of two bytes, planes, and interleaved samples.
            3 * samples + u64::from(size.0) * u64::from(size.1) * u64::from(colors)
        } else if progressive {
            // The coefficients are kept until the last scan.
            2 * samples
        } else {
            0
        };
        if progressive {
            let mut scans = 1;
            while let Some((marker, _)) = next_segment(&mut jpeg)? {
                scans += usize::from(marker == START_OF_SCAN);
                if scans > MAX_SCANS {
                    return Ok(Err("it has more than 100 scans"));
                }
            }
        }
        Ok(Ok(Self { size, colors, misread, work }))
    }
}

/// Number of samples of all components, padded to whole blocks of at most 32 pixels.
fn samples(frame: &[u8], (width, height): (u32, u32)) -> u64 {
    let padded = u64::from(width.next_multiple_of(32)) * u64::from(height.next_multiple_of(32));
    let finest = |side: fn((u8, u8)) -> u8| factors(frame).map(side).max().unwrap_or(1).max(1);
    let (across, down) = (u64::from(finest(|(x, _)| x)), u64::from(finest(|(_, y)| y)));
    factors(frame).map(|(x, y)| padded * u64::from(x) * u64::from(y) / (across * down)).sum()
}

/// Returns whether a component has a higher resolution than the first one, usually the luma.
fn grows_finer(frame: &[u8]) -> bool {
    let mut factors = factors(frame);
    let Some((across, down)) = factors.next() else { return false };
    factors.any(|(more_across, more_down)| more_across > across || more_down > down)
}

/// Horizontal and vertical sampling factors of each component.
fn factors(frame: &[u8]) -> impl Iterator<Item = (u8, u8)> {
    let (colors, _) = frame.get(6..).unwrap_or_default().as_chunks();
    colors.iter().map(|&[_, factors, _]| (factors >> 4, factors & 0x0F))
}

/// Decodes an image of a known size.
pub(super) fn decode(jpeg: impl Read, size: (u32, u32)) -> Result<DynamicImage, Error> {
    let unclear = || Error::Format(super::CONTRADICTION.to_owned());
    let mut decoder = Decoder::new(jpeg);
    decoder.read_info()?;
    let info = decoder.info().ok_or_else(unclear)?;
    if (info.width.into(), info.height.into()) != size {
        return Err(unclear());
    }
    let samples = decoder.decode()?;
    let rgb = match info.pixel_format {
        PixelFormat::RGB24 => samples,
        PixelFormat::CMYK32 => rgb_of_cmyk(&samples),
        // A misread image has several components.
        PixelFormat::L8 | PixelFormat::L16 => return Err(unclear()),
    };
    Ok(RgbImage::from_raw(size.0, size.1, rgb).ok_or_else(unclear)?.into())
}

/// Ignores colour profiles, like the image crate.
fn rgb_of_cmyk(samples: &[u8]) -> Vec<u8> {
    let light = |ink: u8| u32::from(255 - ink);
    let (pixels, _) = samples.as_chunks();
    let to_rgb = |&[cyan, magenta, yellow, black]: &[u8; 4]| {
        [cyan, magenta, yellow].map(|ink| ((light(ink) * light(black) + 127) / 255) as u8)
    };
    pixels.iter().flat_map(to_rgb).collect()
}
