//! Invalid inputs.

use super::*;

/// A PNG that claims this size but has next to no data.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (name, data) in [(b"IHDR", &header[..]), (b"IDAT", b"x\x9c"), (b"IEND", b"")] {
        let chunk = [name, data].concat();
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&chunk);
        png.extend(crc32(&chunk).to_be_bytes());
    }
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    })
}

#[tokio::test]
async fn a_bomb_is_refused_by_its_header() {
    let desk = Desk::new();
    desk.put("bomb.png", &png_header(60_000, 60_000));
    let too_many = "image `bomb.png` is 60000x60000 pixels, the limit is 200 megapixels";
    assert_eq!(desk.refusal("bomb.png").await, too_many);
    // Even without any pixel data.
    desk.put("bomb.png", &png_header(60_000, 60_000)[..33]);
    assert_eq!(desk.refusal("bomb.png").await, too_many);
    desk.put("long.png", &png_header(70_000, 1));
    assert_eq!(
        desk.refusal("long.png").await,
        "image `long.png` is 70000x1 pixels, the limit is 65535 per side"
    );
}

/// Overwrites the bytes after `before` with `new`.
fn overwrite(bytes: &mut [u8], before: &[u8], new: &[u8]) {
    let found = bytes.windows(before.len()).position(|window| window == before).unwrap();
    bytes[found + before.len()..][..new.len()].copy_from_slice(new);
}

#[tokio::test]
async fn a_bomb_of_any_format_is_refused() {
    let desk = Desk::new();
    for format in [ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::Jpeg, ImageFormat::Tiff] {
        let mut bytes = encoded(&speckled(16, 16), format);
        match format {
            ImageFormat::Bmp => bytes[18..26].copy_from_slice(b"\x60\xEA\0\0\x60\xEA\0\0"),
            ImageFormat::Gif => bytes[6..10].copy_from_slice(b"\x60\xEA\x60\xEA"),
            // Start of frame: its length, 8 bits a sample.
            ImageFormat::Jpeg => overwrite(&mut bytes, b"\xFF\xC0\0\x11\x08", b"\xEA\x60\xEA\x60"),
            // The tags ImageWidth, ImageLength and RowsPerStrip, one number of 32 bits each.
            ImageFormat::Tiff => {
                for tag in [b"\x00\x01", b"\x01\x01", b"\x16\x01"] {
                    let entry = [tag, b"\x04\0\x01\0\0\0".as_slice()].concat();
                    overwrite(&mut bytes, &entry, b"\x60\xEA");
                }
            }
            _ => unreachable!(),
        }
        desk.put("bomb", &bytes);
        let refusal = desk.refusal("bomb").await;
        assert!(refusal.starts_with("image `bomb` is 60000x60000 pixels"), "{format:?}: {refusal}");
    }
}

#[tokio::test]
async fn an_image_without_pixels_is_refused() {
    let desk = Desk::new();
    let mut gif = encoded(&speckled(16, 16), ImageFormat::Gif);
    gif[6..10].fill(0);
    desk.put("in.gif", &gif);
    assert_eq!(
        desk.refusal("in.gif").await,
        "image `in.gif` is 0x0 pixels, there is nothing to resize"
    );
    desk.put("in.png", &png_header(0, 5));
    let refusal = desk.refusal("in.png").await;
    assert!(refusal.contains("`in.png`"), "{refusal}");
}

#[tokio::test]
async fn a_truncated_image_is_refused() {
    let desk = Desk::new();
    for format in FORMATS {
        let bytes = encoded(&speckled(64, 64), format);
        for length in [20, bytes.len() / 2, bytes.len() * 9 / 10] {
            desk.put("cut", &bytes[..length]);
            let refusal = desk.refusal("cut").await;
            assert!(refusal.contains("`cut`"), "{format:?}: {refusal}");
        }
    }
}

#[tokio::test]
async fn a_jpeg_may_have_something_behind_its_end() {
    let desk = Desk::new();
    let whole = encoded(&speckled(64, 64), ImageFormat::Jpeg);
    desk.put("in.jpg", &[&whole, b"made by a camera".as_slice()].concat());
    desk.process("in.jpg", "out.png", to(Format::Png, 4, 3)).await.unwrap();
    // The end of an embedded thumbnail is not the end of the image.
    let thumbnail = b"\xFF\xD8\xFF\xE1\0\x06\xFF\xD9\xFF\xD9";
    desk.put("in.jpg", &[thumbnail, &whole[2..whole.len() / 2]].concat());
    assert_eq!(
        desk.refusal("in.jpg").await,
        "image `in.jpg` is truncated: the file ends too early"
    );
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let desk = Desk::new();
    desk.put("notes.png", b"Dear diary, today I renamed a text file.");
    assert_eq!(
        desk.refusal("notes.png").await,
        "`notes.png` is not an image: expected JPEG, PNG, WebP, TIFF, BMP or GIF"
    );
    desk.put("empty.jpg", b"");
    assert!(desk.refusal("empty.jpg").await.starts_with("`empty.jpg` is not an image"));
}

#[tokio::test]
async fn a_wrong_extension_does_no_harm() {
    let desk = Desk::new();
    desk.put("in.png", &encoded(&speckled(16, 16), ImageFormat::Gif));
    desk.process("in.png", "out.jpg", to(Format::Tiff, 4, 3)).await.unwrap();
    assert_eq!(desk.open("out.jpg").width(), 4);
}

#[tokio::test]
async fn an_absent_input_is_named() {
    let desk = Desk::new();
    let result = desk.process("nowhere.png", "out.png", to(Format::Png, 4, 3)).await;
    assert!(result.unwrap_err().to_string().contains("`nowhere.png`"));
}
