//! A deterministic picture that compresses like a photograph.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{Rgb, RgbImage};
use jpeg_encoder::{ColorType, SamplingFactor};

pub(crate) const WIDTH: u16 = 6000;
pub(crate) const HEIGHT: u16 = 4000;

const SHAPES: u32 = 400;

/// Smooth light, objects with edges in front, and sensor noise over all.
pub(crate) fn paint() -> RgbImage {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut picture = RgbImage::from_fn(WIDTH.into(), HEIGHT.into(), |x, y| {
        let (x, y) = (x as f32 / 1000.0, y as f32 / 1000.0);
        Rgb([x + y, 2.0 * x - y, y * 1.5 - x].map(|at| (128.0 + 90.0 * at.sin()) as u8))
    });
    for _ in 0..SHAPES {
        paint_shape(&mut picture, &mut random);
    }
    for Rgb(pixel) in picture.pixels_mut() {
        let bits = random.next();
        // The sum of four is close enough to a normal distribution.
        let common = (0..4).map(|at| (bits >> (8 * at)) as u8 % 11).sum::<u8>();
        for (at, sample) in pixel.iter_mut().enumerate() {
            let own = (bits >> (32 + 8 * at)) as u8 & 3;
            *sample = sample.saturating_add(common + own).saturating_sub(21);
        }
    }
    picture
}

/// Paints a rectangle or an ellipse of one colour.
fn paint_shape(picture: &mut RgbImage, random: &mut Random) {
    let (width, height) = (random.below(500) + 20, random.below(500) + 20);
    let (left, top) =
        (random.below(u32::from(WIDTH) - width), random.below(u32::from(HEIGHT) - height));
    let color = Rgb([(); 3].map(|()| random.below(256) as u8));
    let is_round = random.below(2) == 0;
    for y in 0..height {
        for x in 0..width {
            let [across, down] =
                [(x, width), (y, height)].map(|(at, side)| 2.0 * at as f32 / side as f32 - 1.0);
            if !is_round || across * across + down * down <= 1.0 {
                picture.put_pixel(left + x, top + y, color);
            }
        }
    }
}

/// Chroma in half resolution, as in cameras.
pub(crate) fn save_jpeg(picture: &RgbImage, path: &Path) {
    let mut encoder = jpeg_encoder::Encoder::new_file(path, 90).unwrap();
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(picture, WIDTH, HEIGHT, ColorType::Rgb).unwrap();
}

/// With the compression level of most programs.
pub(crate) fn save_png(picture: &RgbImage, path: &Path) {
    let file = BufWriter::new(File::create(path).unwrap());
    let encoder =
        PngEncoder::new_with_quality(file, CompressionType::Default, FilterType::Adaptive);
    picture.write_with_encoder(encoder).unwrap();
}

/// Xorshift: fast and deterministic.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u32) -> u32 {
        ((self.next() >> 32) % u64::from(limit)) as u32
    }
}
