//! JPEG output, and JPEG input of every kind.

use std::io;
use std::ops::Range;

use image::codecs::jpeg::JpegEncoder;
use image::{GenericImageView, Rgb};
use jpeg_decoder::Decoder;
use jpeg_encoder::{ColorType as JpegColor, Encoder, SamplingFactor};

use super::super::jpeg::Layout;
use super::*;

fn gradient(width: u32, height: u32) -> DynamicImage {
    let shade = |at: u32, side: u32| (at * 255 / side) as u8;
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([shade(x, width), shade(y, height), shade(x + y, width + height)])
    })
    .into()
}

/// Grey, because subsampling would blur coloured noise.
fn noise(width: u32, height: u32) -> DynamicImage {
    let grey = speckled(width, height).into_luma8();
    DynamicImage::from(grey).into_rgb8().into()
}

fn blocks(width: u32, height: u32) -> DynamicImage {
    const COLORS: [[u8; 3]; 5] =
        [[220, 30, 40], [30, 200, 60], [40, 60, 220], [255, 255, 255], [10, 10, 10]];
    RgbImage::from_fn(width, height, |x, y| Rgb(COLORS[((x / 16 + y / 16 * 2) % 5) as usize]))
        .into()
}

fn white(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_pixel(width, height, Rgb([255; 3])).into()
}

/// Largest difference between samples of two images.
fn distance(a: &DynamicImage, b: &DynamicImage) -> u8 {
    assert_eq!((a.dimensions(), a.color()), (b.dimensions(), b.color()));
    a.as_bytes().iter().zip(b.as_bytes()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// Similarity of two images (PSNR), in decibels.
fn likeness(a: &DynamicImage, b: &DynamicImage) -> f64 {
    assert_eq!((a.dimensions(), a.color()), (b.dimensions(), b.color()));
    let square = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b)).powi(2);
    let squares: f64 = a.as_bytes().iter().zip(b.as_bytes()).map(square).sum();
    let mean = squares / a.as_bytes().len() as f64;
    10.0 * (255.0 * 255.0 / mean.max(0.01)).log10()
}

/// The image crate and an independent decoder agree on the output, which is about as close to the
/// original as one of the image crate's encoder at the same quality.
#[tokio::test]
async fn what_is_written_can_be_read() {
    let desk = Desk::new();
    for (width, height) in [(1, 1), (20, 10), (64, 48), (133, 77), (640, 480)] {
        for drawing in [gradient, noise, blocks, white].map(|draw| draw(width, height)) {
            let grey = drawing.to_luma8().into();
            for (image, quality) in
                [&drawing, &grey].into_iter().flat_map(|image| [50, 85, 95].map(|q| (image, q)))
            {
                desk.draw("in.png", image);
                let task = ImageProcessTask { quality, ..to(Format::Jpeg, width, height) };
                desk.process("in.png", "out.jpg", task).await.unwrap();
                let output = desk.open("out.jpg");
                let case = format!("{width}x{height} {:?} at {quality}", image.color());

                let mut usual = Vec::new();
                let encoder = JpegEncoder::new_with_quality(&mut usual, quality);
                image.write_with_encoder(encoder).unwrap();
                let usual = likeness(&image::load_from_memory(&usual).unwrap(), image);
                // The image crate's encoder never subsamples colours.
                let coarse = image.color().has_color() && quality < 90;
                let least = if coarse { (usual - 6.0).min(25.0) } else { usual - 1.0 };
                let found = likeness(&output, image);
                assert!(found >= least, "{case}: {found} dB of {usual}");

                let samples = Decoder::new(&*desk.read("out.jpg")).decode().unwrap();
                let off = output.as_bytes().iter().zip(&samples).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(off <= Some(4), "{case}: off by {off:?}");
            }
        }
    }
}

/// A JPEG stored on its side.
struct Drawn {
    color: JpegColor,
    sampling: SamplingFactor,
    /// One scan per component, as this encoder writes with optimised tables.
    apart: bool,
}

impl Drawn {
    fn file(&self, image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 90);
        encoder.set_optimized_huffman_tables(self.apart);
        encoder.set_sampling_factor(self.sampling);
        encoder.add_exif_metadata(&exif(6)).unwrap();
        let (width, height) = (image.width() as u16, image.height() as u16);
        encoder.encode(image.as_bytes(), width, height, self.color).unwrap();
        bytes
    }
}

/// Four components, the last one equal to the first.
fn inks(image: &DynamicImage) -> DynamicImage {
    let mut inks = image.to_rgba8();
    inks.pixels_mut().for_each(|ink| ink.0[3] = ink.0[0]);
    inks.into()
}

/// The same coefficients decode alike from a file that the image crate reads correctly.
#[tokio::test]
async fn colours_in_scans_of_their_own_are_read_right() {
    use SamplingFactor::{F_1_1, F_1_2, F_2_1, F_2_2};
    let desk = Desk::new();
    for (width, height) in [(20, 10), (8, 200), (64, 48), (133, 77)] {
        for drawing in [gradient, noise, blocks, white].map(|draw| draw(width, height)) {
            let inks = inks(&drawing);
            for (image, color, samplings) in [
                (&drawing, JpegColor::Rgb, [F_1_1, F_1_2, F_2_1, F_2_2].as_slice()),
                (&inks, JpegColor::CmykAsYcck, &[F_1_1, F_1_2, F_2_1, F_2_2]),
                (&inks, JpegColor::Cmyk, &[F_1_1]),
            ] {
                for &sampling in samplings {
                    let [together, apart] =
                        [false, true].map(|apart| Drawn { color, sampling, apart });
                    desk.put("together.jpg", &together.file(image));
                    desk.put("apart.jpg", &apart.file(image));
                    for name in ["together", "apart"] {
                        let (input, output) = (format!("{name}.jpg"), format!("{name}.png"));
                        let task = to(Format::Png, height, width);
                        desk.process(&input, &output, task).await.unwrap();
                    }
                    let (together, apart) = (desk.open("together.png"), desk.open("apart.png"));
                    let far = distance(&together, &apart);
                    assert!(far <= 8, "{width}x{height} {color:?} {sampling:?}: off by {far}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_first_colour_may_be_the_coarsest() {
    use SamplingFactor::{F_1_1, F_1_2, F_2_1, F_2_2};
    let desk = Desk::new();
    let mut outputs = Vec::new();
    // With four components this encoder samples the last one more finely.
    for sampling in [F_1_1, F_1_2, F_2_1, F_2_2] {
        let drawn = Drawn { color: JpegColor::Cmyk, sampling, apart: false };
        desk.put("in.jpg", &drawn.file(&inks(&gradient(133, 77))));
        desk.process("in.jpg", "out.png", to(Format::Png, 77, 133)).await.unwrap();
        outputs.push(desk.open("out.png"));
    }
    for output in &outputs {
        let alike = likeness(output, &outputs[0]);
        assert!(alike > 35.0, "{alike} dB");
    }
}

/// The scans of a file with one component each.
fn scans(file: &[u8]) -> Vec<Range<usize>> {
    let starts = (0..file.len()).filter(|&at| file[at..].starts_with(b"\xFF\xDA\0\x08\x01"));
    let mut edges: Vec<_> = starts.collect();
    edges.push(file.len() - 2);
    edges.windows(2).map(|edges| edges[0]..edges[1]).collect()
}

#[tokio::test]
async fn scans_may_come_in_any_order_but_have_to_come() {
    let desk = Desk::new();
    let (color, sampling) = (JpegColor::Rgb, SamplingFactor::F_2_2);
    let file = Drawn { color, sampling, apart: true }.file(&speckled(40, 30));
    let [luma, blue, red] = scans(&file).try_into().unwrap();
    let with_scans = |order: &[&Range<usize>]| {
        let scans = order.iter().map(|&scan| &file[scan.clone()]);
        let parts = [&file[..luma.start]].into_iter().chain(scans).chain([b"\xFF\xD9".as_slice()]);
        parts.collect::<Vec<_>>().concat()
    };
    let mut outputs = Vec::new();
    for order in [[&luma, &blue, &red], [&blue, &red, &luma]] {
        desk.put("in.jpg", &with_scans(&order));
        desk.process("in.jpg", "out.png", to(Format::Png, 30, 40)).await.unwrap();
        outputs.push(desk.read("out.png"));
    }
    assert_eq!(outputs[0], outputs[1]);
    for order in [[&luma].as_slice(), &[&luma, &red], &[&blue]] {
        desk.put("in.jpg", &with_scans(order));
        let refusal = desk.refusal("in.jpg").await;
        assert!(refusal.starts_with("cannot decode image `in.jpg`: "), "{refusal}");
    }
}

fn is_misread(jpeg: &[u8]) -> io::Result<bool> {
    Ok(Layout::read(jpeg)?.is_ok_and(|layout| layout.misread))
}

#[test]
fn common_files_are_left_to_the_faster_decoder() {
    let sampling = SamplingFactor::F_1_1;
    let image = speckled(20, 10);
    let grey = image.to_luma8().into();
    for (image, color, apart, expected) in [
        (&image, JpegColor::Rgb, true, true),
        (&image, JpegColor::Rgb, false, false),
        (&grey, JpegColor::Luma, true, false),
        (&grey, JpegColor::Luma, false, false),
    ] {
        let file = Drawn { color, sampling, apart }.file(image);
        assert_eq!(is_misread(&file).unwrap(), expected, "{color:?}, {apart}");
        for end in 0..file.len() {
            let found = is_misread(&file[..end]).unwrap_or_default();
            assert!(expected || !found, "{color:?}, {apart}: the first {end} bytes");
        }
    }
    let mut progressive = Vec::new();
    let mut encoder = Encoder::new(&mut progressive, 90);
    encoder.set_progressive(true);
    encoder.encode(image.as_bytes(), 20, 10, JpegColor::Rgb).unwrap();
    assert!(!is_misread(&progressive).unwrap());
}
