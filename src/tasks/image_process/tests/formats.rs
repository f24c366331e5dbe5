//! Every pixel type in every format.

use image::codecs::jpeg::JpegDecoder;
use image::{
    ColorType, DynamicImage, GrayAlphaImage, ImageBuffer, ImageDecoder, Luma, Pixel, Rgb, Rgba,
    RgbaImage,
};
use png::BitDepth;

use super::*;

/// An image of one colour.
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
        // As read back from JPEG, PNG, WebP, TIFF, BMP and GIF; some of them have no grey.
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
    // The left half has the first colour, the right half the second, which is transparent.
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
async fn floating_point_stays_in_tiff_and_is_scaled_elsewhere() {
    let desk = Desk::new();
    desk.draw("in.tiff", &plain(Rgb([0.25_f32, 5.0, -1.0])).into());
    desk.process("in.tiff", "out.tiff", to(Format::Tiff, 3, 3)).await.unwrap();
    let output = desk.open("out.tiff");
    assert_eq!(output.color(), ColorType::Rgb32F);
    let [red, green, blue] = output.into_rgb32f().get_pixel(1, 1).0;
    assert!((red - 0.25).abs() < 1e-5 && (green - 5.0).abs() < 1e-5 && (blue + 1.0).abs() < 1e-5);
    let result = desk.process("in.tiff", "out.png", to(Format::Png, 3, 3)).await.unwrap();
    assert_eq!(result["scaled_from"], json!([-1.0, 5.0]));
    // (0.25 + 1) / 6 of 65535
    assert_eq!(desk.open("out.png").into_rgb16().get_pixel(1, 1).0, [13_653, 65_535, 0]);
    let sheer = Rgba([0.25_f32, 5.0, -1.0, 0.5]);
    desk.draw("in.tiff", &plain(sheer).into());
    desk.process("in.tiff", "out.png", to(Format::Png, 6, 4)).await.unwrap();
    let pixel = desk.open("out.png").into_rgba16().get_pixel(1, 1).0;
    assert_eq!(pixel, [13_653, 65_535, 0, 32_768]);
}

/// A grey TIFF with four pixels in a row.
fn grey_tiff<C: tiff::encoder::colortype::ColorType>(samples: [C::Inner; 4]) -> Vec<u8>
where
    [C::Inner]: tiff::encoder::TiffValue,
{
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut bytes).unwrap();
    encoder.write_image::<C>(4, 1, &samples).unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn wide_samples_are_scaled_from_the_least_to_the_greatest() {
    use tiff::encoder::colortype::{Gray32, Gray32Float, Gray64, Gray64Float, GrayI16, GrayI32};
    let desk = Desk::new();
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    for (bytes, from, shades) in [
        (
            grey_tiff::<Gray32>([0, 1 << 31, 1 << 30, u32::MAX]),
            json!([0.0, 4_294_967_295.0]),
            [0, 32_768, 16_384, 65_535],
        ),
        (grey_tiff::<Gray64>([5, 6, 7, 9]), json!([5.0, 9.0]), [0, 16_384, 32_768, 65_535]),
        (
            grey_tiff::<GrayI16>([-300, 0, 300, 300]),
            json!([-300.0, 300.0]),
            [0, 32_768, 65_535, 65_535],
        ),
        (grey_tiff::<GrayI32>([-3, -3, -3, 1]), json!([-3.0, 1.0]), [0, 0, 0, 65_535]),
        (
            grey_tiff::<Gray32Float>([1.0, 1.5, 2.0, 1.25]),
            json!([1.0, 2.0]),
            [0, 32_768, 65_535, 16_384],
        ),
        (
            grey_tiff::<Gray32Float>([nan, 1.0, 3.0, infinity]),
            json!([1.0, 3.0]),
            [0, 0, 65_535, 65_535],
        ),
        (
            grey_tiff::<Gray64Float>([f64::MIN, 0.0, f64::MAX, 0.0]),
            json!([f64::MIN, f64::MAX]),
            [0, 32_768, 65_535, 32_768],
        ),
        (grey_tiff::<Gray32Float>([7.5; 4]), json!([7.5, 7.5]), [0; 4]),
        (grey_tiff::<Gray32Float>([nan; 4]), Value::Null, [0; 4]),
    ] {
        desk.put("in.tiff", &bytes);
        let result = desk.process("in.tiff", "out.png", to(Format::Png, 4, 1)).await.unwrap();
        assert_eq!(result["scaled_from"], from);
        assert_eq!(desk.open("out.png").into_luma16().into_raw(), shades, "{from}");
    }
    desk.put("in.tiff", &grey_tiff::<Gray32Float>([0.0, 0.0, 1.0, 1.0]));
    desk.process("in.tiff", "out.jpg", to(Format::Jpeg, 2, 8)).await.unwrap();
    assert_eq!(desk.open("out.jpg").color(), ColorType::L8);
}

#[tokio::test]
async fn the_extension_of_the_output_decides_the_format() {
    let desk = Desk::new();
    desk.draw("in.png", &speckled(8, 8));
    for (output, asked, format, source) in [
        ("out.WebP", None, "WebP", "extension"),
        ("out.xyz", None, "JPEG", "default"),
        ("out.webp", Some(Format::Png), "PNG", "parameter"),
    ] {
        let task = ImageProcessTask { format: asked, ..to(Format::Jpeg, 4, 4) };
        let result = desk.process("in.png", output, task).await.unwrap();
        assert_eq!((&result["format"], &result["format_source"]), (&format.into(), &source.into()));
        let reader = ImageReader::open(desk.0.path().join(output)).unwrap();
        let found = reader.with_guessed_format().unwrap().format().unwrap();
        assert_eq!(format!("{found:?}").to_lowercase(), format.to_lowercase());
    }
    let task = ImageProcessTask { format: None, ..to(Format::Jpeg, 20_000, 1) };
    let refused = desk.process("in.png", "out.webp", task).await.unwrap_err().to_string();
    assert!(refused.contains("WebP") && refused.contains("16383"), "{refused}");
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
