//! Files with several images.

use image::codecs::gif::GifEncoder;
use image::{Frame, GrayImage};
use tiff::encoder::{TiffEncoder, colortype::Gray8};

use super::*;

/// Three images, the first of them white.
fn sheets() -> [GrayImage; 3] {
    [255, 90, 0].map(|shade| GrayImage::from_pixel(8, 6, Luma([shade])))
}

/// Runs the task, checks that it used the white image, and returns the number of frames it found.
async fn frames_of_a_white_first(name: &str, bytes: &[u8]) -> Value {
    let desk = Desk::new();
    desk.put(name, bytes);
    let result = desk.process(name, "out.png", to(Format::Png, 4, 3)).await.unwrap();
    // Blending a WebP frame with a transparent canvas costs one level.
    assert!(desk.open("out.png").to_luma8().get_pixel(2, 1).0 >= [254], "{name}");
    result["frames"].clone()
}

fn multi_page_tiff() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    for sheet in sheets() {
        encoder.write_image::<Gray8>(8, 6, &sheet).unwrap();
    }
    bytes.into_inner()
}

#[tokio::test]
async fn the_pages_of_a_tiff_are_counted() {
    assert_eq!(frames_of_a_white_first("in.tiff", &multi_page_tiff()).await, 3);
}

#[tokio::test]
async fn pages_that_lead_round_in_a_circle_are_counted_once() {
    let mut tiff = multi_page_tiff();
    let number = |tiff: &[u8], at: usize| {
        u32::from_le_bytes([tiff[at], tiff[at + 1], tiff[at + 2], tiff[at + 3]]) as usize
    };
    let first = number(&tiff, 4);
    // A page: the count of its entries, the entries, and the position of the next page.
    let link = |tiff: &[u8], page: usize| {
        page + 2 + 12 * usize::from(u16::from_le_bytes([tiff[page], tiff[page + 1]]))
    };
    let mut last = link(&tiff, first);
    while number(&tiff, last) != 0 {
        last = link(&tiff, number(&tiff, last));
    }
    tiff[last..last + 4].copy_from_slice(&(first as u32).to_le_bytes());
    assert_eq!(frames_of_a_white_first("in.tiff", &tiff).await, 3);
}

#[tokio::test]
async fn the_frames_of_a_gif_are_counted_as_far_as_they_go() {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for sheet in sheets() {
        encoder.encode_frame(Frame::new(DynamicImage::from(sheet).into_rgba8())).unwrap();
    }
    drop(encoder);
    assert_eq!(frames_of_a_white_first("in.gif", &bytes).await, 3);
    // Damage in the last frame does not affect the first.
    let cut = bytes.len() - 12;
    assert_eq!(frames_of_a_white_first("in.gif", &bytes[..cut]).await, 2);
}

#[tokio::test]
async fn the_frames_of_an_animated_png_are_counted() {
    for apart in [false, true] {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 8, 6);
        encoder.set_animated(if apart { 2 } else { 3 }, 0).unwrap();
        encoder.set_sep_def_img(apart).unwrap();
        let mut writer = encoder.write_header().unwrap();
        for sheet in sheets() {
            writer.write_image_data(&sheet).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(frames_of_a_white_first("in.png", &bytes).await, 3, "first apart: {apart}");
    }
}

#[tokio::test]
async fn the_frames_of_an_animated_webp_are_counted() {
    let chunk = |name: &[u8; 4], data: &[u8]| {
        [name, &(data.len() as u32).to_le_bytes()[..], data, &[0][..data.len() % 2]].concat()
    };
    let mut body = b"WEBP".to_vec();
    // Animated, 8 by 6 pixels; sides are stored minus one.
    body.extend(chunk(b"VP8X", &[2, 0, 0, 0, 7, 0, 0, 5, 0, 0]));
    body.extend(chunk(b"ANIM", &[0; 6]));
    for sheet in sheets() {
        let still = encoded(&sheet.into(), ImageFormat::WebP);
        let frame = [0, 0, 0, 0, 0, 0, 7, 0, 0, 5, 0, 0, 100, 0, 0, 0];
        // Skip "RIFF", the length and "WEBP".
        body.extend(chunk(b"ANMF", &[&frame, &still[12..]].concat()));
    }
    assert_eq!(frames_of_a_white_first("in.webp", &chunk(b"RIFF", &body)).await, 3);
}
