//! What becomes of each kind of pixels in each format.

use image::codecs::jpeg::JpegDecoder;
use image::{
    ColorType, DynamicImage, GrayAlphaImage, ImageBuffer, ImageDecoder, Luma, Pixel, Rgb, Rgba,
    RgbaImage,
};
use png::BitDepth;

use super::*;

/// An image of one colour, of each kind that a PNG can hold.
fn plain<P: Pixel<Subpixel = T>, T>(pixel: P) -> ImageBuffer<P, Vec<T>>
where
    T: image::Primitive,
{
    ImageBuffer::from_pixel(6, 4, pixel)
}

#[tokio::test]
async fn every_format_keeps_what_it_can_of_every_kind() {
    use ColorType::{L8, L16, La8, La16, Rgb8, Rgb16, Rgba8, Rgba16};
    let kinds: [(DynamicImage, [ColorType; 6]); 8] = [
        // As read back from JPEG, PNG, WebP, TIFF, BMP and GIF, of which some know no grey.
        (plain(Luma([90_u8])).into(), [L8, L8, Rgb8, L8, Rgb8, Rgba8]),
        (plain(image::LumaA([90_u8, 255])).into(), [L8, La8, Rgba8, Rgba8, Rgba8, Rgba8]),
        (plain(Rgb([90_u8, 60, 30])).into(), [Rgb8, Rgb8, Rgb8, Rgb8, Rgb8, Rgba8]),
        (plain(Rgba([90_u8, 60, 30, 255])).into(), [Rgb8, Rgba8, Rgba8, Rgba8, Rgba8, Rgba8]),
        (plain(Luma([90_u16 * 257])).into(), [L8, L16, Rgb8, L16, Rgb8, Rgba8]),
        (
            plain(image::LumaA([90_u16 * 257, 65_535])).into(),
            [L8, La16, Rgba8, Rgba16, Rgba8, Rgba8],
        ),
        (plain(Rgb([90_u16 * 257; 3])).into(), [Rgb8, Rgb16, Rgb8, Rgb16, Rgb8, Rgba8]),
        (
            plain(Rgba([90_u16 * 257, 0, 0, 65_535])).into(),
            [Rgb8, Rgba16, Rgba8, Rgba16, Rgba8, Rgba8],
        ),
    ];
    let desk = Desk::new();
    for (image, expected) in kinds {
        desk.draw("in.png", &image);
        for (&format, expected) in <Format as strum::VariantArray>::VARIANTS.iter().zip(expected) {
            let case = format!("{:?} to {}", image.color(), format.name());
            let result = desk.process("in.png", "out", to(format, 5, 7)).await.unwrap();
            assert_eq!(result["format"], format.name());
            assert_eq!(result["file_size_bytes"], desk.length("out"), "{case}");
            let output = desk.open("out");
            assert_eq!((output.width(), output.height()), (5, 7), "{case}");
            assert_eq!(output.color(), expected, "{case}");
            let (found, drawn) = (output.to_rgb8(), image.to_rgb8());
            let off = found.get_pixel(2, 3).0.map(i16::from);
            let off =
                std::iter::zip(off, drawn.get_pixel(0, 0).0).map(|(a, b)| a.abs_diff(b.into()));
            assert!(off.max() <= Some(2), "{case}: {:?}", found.get_pixel(2, 3));
        }
    }
}

#[tokio::test]
async fn sixteen_bits_are_kept_to_the_last() {
    let desk = Desk::new();
    desk.draw("in.tiff", &plain(Luma([12_345_u16])).into());
    for format in [Format::Png, Format::Tiff] {
        desk.process("in.tiff", "out", to(format, 3, 3)).await.unwrap();
        assert_eq!(desk.open("out").into_luma16().get_pixel(1, 1).0, [12_345]);
    }
    // 12345 / 257 = 48.04
    desk.process("in.tiff", "out", to(Format::WebP, 3, 3)).await.unwrap();
    assert_eq!(desk.open("out").into_luma8().get_pixel(1, 1).0, [48]);
}

#[tokio::test]
async fn a_jpeg_shows_the_transparent_on_white() {
    let desk = Desk::new();
    desk.draw("rgba.png", &RgbaImage::from_pixel(8, 8, Rgba([255, 0, 0, 0])).into());
    desk.draw("grey.png", &GrayAlphaImage::from_pixel(8, 8, image::LumaA([0, 51])).into());
    for (input, expected) in [("rgba.png", 255), ("grey.png", 204)] {
        desk.process(input, "out.jpg", to(Format::Jpeg, 8, 8)).await.unwrap();
        assert_eq!(desk.open("out.jpg").to_rgb8().get_pixel(4, 4).0, [expected; 3], "{input}");
    }
}

#[tokio::test]
async fn a_gif_is_transparent_where_more_than_half_is() {
    let desk = Desk::new();
    let veil = RgbaImage::from_fn(8, 1, |x, _| Rgba([10, 20, 30, (x * 36) as u8]));
    desk.draw("in.png", &veil.into());
    desk.process("in.png", "out.gif", to(Format::Gif, 8, 1)).await.unwrap();
    let alpha: Vec<_> =
        desk.open("out.gif").into_rgba8().pixels().map(|pixel| pixel.0[3]).collect();
    assert_eq!(alpha, [0, 0, 0, 0, 255, 255, 255, 255]);
}

#[tokio::test]
async fn palettes_are_looked_up() {
    let desk = Desk::new();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 4, 2);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(BitDepth::Two);
    encoder.set_palette(vec![200, 100, 50, 0, 0, 0]);
    encoder.set_trns(vec![255, 0]);
    let mut writer = encoder.write_header().unwrap();
    // The left half shows the first colour, the right half the second one, which is transparent.
    writer.write_image_data(&[0b0000_0101; 2]).unwrap();
    writer.finish().unwrap();
    desk.put("in.png", &bytes);

    desk.process("in.png", "out.png", to(Format::Png, 4, 2)).await.unwrap();
    let output = desk.open("out.png").into_rgba8();
    assert_eq!(output.get_pixel(0, 0).0, [200, 100, 50, 255]);
    assert_eq!(output.get_pixel(3, 1).0[3], 0);
    desk.process("in.png", "out.bmp", to(Format::Bmp, 2, 1)).await.unwrap();
    assert_eq!(desk.open("out.bmp").color(), ColorType::Rgba8);
}

#[tokio::test]
async fn floating_point_stays_in_tiff_and_fits_nowhere_else() {
    let desk = Desk::new();
    desk.draw("in.tiff", &plain(Rgb([0.25_f32, 5.0, -1.0])).into());
    desk.process("in.tiff", "out.tiff", to(Format::Tiff, 3, 3)).await.unwrap();
    let output = desk.open("out.tiff");
    assert_eq!(output.color(), ColorType::Rgb32F);
    let [red, green, blue] = output.into_rgb32f().get_pixel(1, 1).0;
    assert!((red - 0.25).abs() < 1e-5 && (green - 5.0).abs() < 1e-5 && (blue + 1.0).abs() < 1e-5);
    assert_eq!(
        desk.refusal("in.tiff").await,
        "the image has floating-point samples, which PNG cannot hold: use format TIFF"
    );
}

#[tokio::test]
async fn a_colour_profile_comes_along_where_it_fits() {
    let desk = Desk::new();
    let profile = [&[0; 16], b"RGB ".as_slice(), &[7; 100]].concat();
    for (image, kept) in [(speckled(8, 8), true), (speckled(8, 8).into_luma8().into(), false)] {
        let mut bytes = Vec::new();
        let mut encoder = PngEncoder::new(&mut bytes);
        encoder.set_icc_profile(profile.clone()).unwrap();
        image.write_with_encoder(encoder).unwrap();
        desk.put("in.png", &bytes);
        desk.process("in.png", "out.jpg", to(Format::Jpeg, 4, 4)).await.unwrap();
        let output = desk.read("out.jpg");
        let found = JpegDecoder::new(Cursor::new(output)).unwrap().icc_profile().unwrap();
        assert_eq!(found, kept.then(|| profile.clone()));
    }
}
