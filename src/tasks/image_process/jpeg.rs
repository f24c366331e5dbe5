//! What lies between the markers of a JPEG, and another decoder for some of them.
//!
//! The one of the image crate makes garbage of a few valid files, and says nothing
//! (<https://github.com/etemesi254/zune-image/issues/422>). It is the faster one for all others.

use std::io::{self, BufRead, Read};

use image::{DynamicImage, RgbImage};
use jpeg_decoder::{Decoder, Error, PixelFormat};

/// Starts of the frames that are not progressive: baseline, and extended sequential.
const BASELINE: u8 = 0xC0;
const EXTENDED: u8 = 0xC1;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Most scans of a progressive image: encoders write about ten. Each goes through all of the image, however few
/// bytes it has.
const MAX_SCANS: usize = 100;

/// The next segment: its marker and what it holds. The end of a thumbnail inside a segment is thus
/// not taken for that of the image.
fn next_segment(jpeg: &mut impl BufRead) -> io::Result<Option<(u8, Vec<u8>)>> {
    loop {
        // Compressed data is what lies between segments; in it FF 00 stands for a byte FF.
        jpeg.skip_until(0xFF)?;
        // More of FF may follow as padding.
        let marker = jpeg.by_ref().bytes().find(|byte| !matches!(byte, Ok(0xFF))).transpose()?;
        match marker {
            None => return Ok(None),
            // Stuffed, or standing alone (restart and the like).
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

/// Whether the image has its end.
pub(super) fn has_end(mut jpeg: impl BufRead) -> io::Result<bool> {
    while let Some((marker, _)) = next_segment(&mut jpeg)? {
        if marker == END_OF_IMAGE {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the markers tell of an image.
pub(super) struct Layout {
    pub(super) size: (u32, u32),
    /// Number of colours, as they are stored.
    pub(super) colors: usize,
    progressive: bool,
    /// Whether the image is one for [`decode`].
    pub(super) misread: bool,
    /// Samples of all colours together; some have less resolution.
    samples: u64,
}

impl Layout {
    /// Reads the header, or returns what is wrong with it.
    pub(super) fn read(mut jpeg: impl BufRead) -> io::Result<Result<Self, &'static str>> {
        let mut frame: Option<(u8, Vec<u8>)> = None;
        let scan = loop {
            match next_segment(&mut jpeg)? {
                None | Some((END_OF_IMAGE, _)) => return Ok(Err("it has no pixels")),
                Some((START_OF_SCAN, body)) => break body,
                Some((marker, body)) if is_frame(marker) => {
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
        let plain = matches!(marker, BASELINE | EXTENDED);
        let layout = Self {
            size,
            colors: colors.into(),
            progressive: !plain,
            misread: plain && (is_in_parts(&frame, &scan) || grows_finer(&frame)),
            samples: samples(&frame, size),
        };
        if layout.progressive {
            let mut scans = 1;
            while let Some((marker, _)) = next_segment(&mut jpeg)? {
                scans += usize::from(marker == START_OF_SCAN);
                if scans > MAX_SCANS {
                    return Ok(Err("it has more than 100 scans"));
                }
            }
        }
        Ok(Ok(layout))
    }

    /// Bytes that a decoder takes beside the pixels, and beside the file.
    pub(super) fn work(&self) -> u64 {
        // Coefficients of two bytes each are kept until the last scan.
        let coefficients = 2 * self.samples;
        if self.misread {
            // They become planes, those become pixels of all colours, and inks become RGB.
            let (width, height) = self.size;
            let pixels = u64::from(width) * u64::from(height);
            coefficients + self.samples + pixels * self.colors as u64
        } else if self.progressive {
            coefficients
        } else {
            0
        }
    }
}

/// Whether this marks the header of a frame, with the size of the image.
fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
}

/// Samples of all colours together. Each has whole blocks, of 32 pixels at most.
fn samples(frame: &[u8], (width, height): (u32, u32)) -> u64 {
    let padded = u64::from(width.next_multiple_of(32)) * u64::from(height.next_multiple_of(32));
    let finest = |side: fn((u8, u8)) -> u8| factors(frame).map(side).max().unwrap_or(1).max(1);
    let (across, down) = (u64::from(finest(|(x, _)| x)), u64::from(finest(|(_, y)| y)));
    factors(frame).map(|(x, y)| padded * u64::from(x) * u64::from(y) / (across * down)).sum()
}

/// Whether not all colours are in the first scan.
fn is_in_parts(frame: &[u8], scan: &[u8]) -> bool {
    frame.get(5).zip(scan.first()).is_some_and(|(all, scanned)| scanned < all)
}

/// Whether a colour has more resolution than the first one, which mostly is the brightness.
fn grows_finer(frame: &[u8]) -> bool {
    let mut factors = factors(frame);
    let Some((across, down)) = factors.next() else { return false };
    factors.any(|(more_across, more_down)| more_across > across || more_down > down)
}

/// Resolution of each colour across and down, in relation to the others.
fn factors(frame: &[u8]) -> impl Iterator<Item = (u8, u8)> {
    let (colors, _) = frame.get(6..).unwrap_or_default().as_chunks();
    colors.iter().map(|&[_, factors, _]| (factors >> 4, factors & 0x0F))
}

/// Decodes an image that is known to have this size.
pub(super) fn decode(jpeg: impl Read, size: (u32, u32)) -> Result<DynamicImage, Error> {
    let unclear = || Error::Format("it contradicts itself about its size or colours".to_owned());
    let mut decoder = Decoder::new(jpeg);
    decoder.read_info()?;
    let info = decoder.info().ok_or_else(unclear)?;
    let (width, height) = (info.width.into(), info.height.into());
    if (width, height) != size {
        return Err(unclear());
    }
    let samples = decoder.decode()?;
    let rgb = match info.pixel_format {
        PixelFormat::RGB24 => samples,
        PixelFormat::CMYK32 => rgb_of_cmyk(&samples),
        // Grey is but one colour, which cannot lack one or differ from another.
        PixelFormat::L8 | PixelFormat::L16 => return Err(unclear()),
    };
    Ok(RgbImage::from_raw(width, height, rgb).ok_or_else(unclear)?.into())
}

/// Without regard to a profile, as the image crate does it.
fn rgb_of_cmyk(samples: &[u8]) -> Vec<u8> {
    let light = |ink: u8| u32::from(255 - ink);
    let (pixels, _) = samples.as_chunks();
    let to_rgb = |&[cyan, magenta, yellow, black]: &[u8; 4]| {
        [cyan, magenta, yellow].map(|ink| ((light(ink) * light(black) + 127) / 255) as u8)
    };
    pixels.iter().flat_map(to_rgb).collect()
}
