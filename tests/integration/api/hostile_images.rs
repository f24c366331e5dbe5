//! Images that claim to be large or decompress to something large: each task fails with a clear
//! error before it takes memory.

use std::fs::File;
use std::io::{Cursor, Write};
use std::os::unix::fs::FileExt;

use image::{DynamicImage, GrayImage, ImageFormat};
use serde_json::{Value, json};

use crate::common::Server;

const FORMATS: [ImageFormat; 6] = [
    ImageFormat::Bmp,
    ImageFormat::Gif,
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::Tiff,
    ImageFormat::WebP,
];

/// More than the server needs for small images, less than any of the bombs would take.
const MOST_MEMORY_KIB: u64 = 400 * 1024;

/// A small image.
fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(16, 16).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let chunk = [name, data].concat();
    let table: [u32; 256] = std::array::from_fn(|byte| {
        (0..8).fold(byte as u32, |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    });
    let crc =
        !chunk.iter().fold(!0u32, |crc, &byte| (crc >> 8) ^ table[(crc as u8 ^ byte) as usize]);
    [&(data.len() as u32).to_be_bytes()[..], &chunk, &crc.to_be_bytes()].concat()
}

/// A grey PNG of this size, with these chunks after its header.
fn png(width: u32, height: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let head = [b"\x89PNG\r\n\x1a\n".to_vec(), png_chunk(b"IHDR", &header)].concat();
    [head, chunks.concat(), png_chunk(b"IEND", b"")].concat()
}

/// A zlib stream of 100 KB that unpacks to 100 MB of zeros.
fn zlib_bomb() -> Vec<u8> {
    let stream = image_data(&png_of_zeros(10_000, 10_000));
    assert!(stream.len() < 1_000_000, "{}", stream.len());
    stream
}

fn png_of_zeros(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    GrayImage::new(width, height).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Extracts the zlib stream of a PNG.
fn image_data(bytes: &[u8]) -> Vec<u8> {
    let (mut stream, mut at) = (Vec::new(), 8);
    while at < bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if &bytes[at + 4..at + 8] == b"IDAT" {
            stream.extend(&bytes[at + 8..at + 8 + length]);
        }
        at += length + 12;
    }
    stream
}

/// Overwrites the bytes after `before` with `new`.
fn overwrite(bytes: &mut [u8], before: &[u8], new: &[u8]) {
    let found = bytes.windows(before.len()).position(|window| window == before).unwrap();
    bytes[found + before.len()..][..new.len()].copy_from_slice(new);
}

/// A small image whose header claims this size. Lossless WebP is limited to 16383.
fn claiming(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let (short, long) = (|side: u32| side as u16, |side: u32| side.to_le_bytes());
    let mut bytes = encoded(format);
    match format {
        ImageFormat::Bmp => bytes[18..26].copy_from_slice(&[long(width), long(height)].concat()),
        ImageFormat::Gif => {
            let size = [short(width).to_le_bytes(), short(height).to_le_bytes()].concat();
            bytes[6..10].copy_from_slice(&size);
        }
        ImageFormat::Jpeg => {
            let size = [short(height).to_be_bytes(), short(width).to_be_bytes()].concat();
            overwrite(&mut bytes, b"\xFF\xC0\0\x11\x08", &size);
        }
        ImageFormat::Png => bytes = png(width, height, &[png_chunk(b"IDAT", b"x\x9c")]),
        ImageFormat::Tiff => {
            for (tag, side) in [(b"\x00\x01", width), (b"\x01\x01", height), (b"\x16\x01", height)]
            {
                let entry = [tag, b"\x04\0\x01\0\0\0".as_slice()].concat();
                overwrite(&mut bytes, &entry, &long(side));
            }
        }
        ImageFormat::WebP => {
            // Width and height minus one, 14 bits each, after the signature of the lossless stream.
            let mask = 0x3FFF;
            let size = (width.wrapping_sub(1) & mask) | (height.wrapping_sub(1) & mask) << 14;
            let at = bytes.windows(4).position(|name| name == b"VP8L").unwrap() + 9;
            bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
        }
        _ => unreachable!(),
    }
    bytes
}

/// Submits an image; returns the record of the ended task.
async fn processed(server: &Server, name: &str, bytes: &[u8]) -> Value {
    server.write(name, bytes);
    process(server, name).await
}

async fn process(server: &Server, name: &str) -> Value {
    let body = json!({
        "task_type": "image_process",
        "input_file_path": name,
        "output_file_path": "out.png",
        "parameters": { "width": 4, "height": 3, "format": "PNG" },
    });
    let id = server.submit(body).await;
    let task = server.get(&format!("/tasks/{id}?wait=60")).await.body;
    assert!(task["completed_at"].is_string(), "{name}: {task:#}");
    task
}

/// Submits an image that must be refused; returns the error.
async fn refused(server: &Server, name: &str, bytes: &[u8]) -> String {
    let task = processed(server, name, bytes).await;
    assert_eq!(task["status"], "failed", "{name}: {task:#}");
    let error = task["error"].as_str().unwrap().to_owned();
    assert!(error.contains(name), "{name}: {error}");
    assert!(!server.folder().join("out.png").exists(), "{name}");
    error
}

fn assert_little_memory(server: &Server) {
    match server.peak_memory() {
        Some(peak) => assert!(peak < MOST_MEMORY_KIB, "{peak} KiB"),
        None => {
            crate::common::skips::skip("this system does not report the peak memory of a process")
        }
    }
}

#[tokio::test]
async fn an_image_that_claims_to_be_huge_is_refused_by_its_header() {
    let server = Server::start(&[]);
    for format in FORMATS {
        let side = if format == ImageFormat::WebP { 16_383 } else { 60_000 };
        let name = format!("{format:?}");
        let error = refused(&server, &name, &claiming(format, side, side)).await;
        assert!(error.contains(&format!("{side}x{side} pixels, the limit is")), "{error}");
    }
    let mut canvas = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0".to_vec();
    canvas.extend(b"\xFF\xFF\xFF\xFF\xFF\xFF");
    refused(&server, "canvas.webp", &canvas).await;
    let mut upside_down = encoded(ImageFormat::Bmp);
    upside_down[22..26].copy_from_slice(&i32::MIN.to_le_bytes());
    refused(&server, "upside-down.bmp", &upside_down).await;
    let mut tiff = encoded(ImageFormat::Tiff);
    // The largest possible number of strips.
    overwrite(&mut tiff, b"\x11\x01\x04\0", b"\xFF\xFF\xFF\xFF");
    refused(&server, "strips.tiff", &tiff).await;
    assert_little_memory(&server);
}

#[tokio::test]
async fn what_unpacks_to_more_than_the_image_is_not_unpacked() {
    let server = Server::start(&[]);
    let bomb = zlib_bomb();
    let profile = png_chunk(b"iCCP", &[b"profile\0\0", &bomb[..]].concat());
    let text = png_chunk(b"zTXt", &[b"text\0\0", &bomb[..]].concat());
    let more_text = png_chunk(b"iTXt", &[b"text\0\x01\0\0\0", &bomb[..]].concat());
    let pixels = png_chunk(b"IDAT", &bomb);
    for (name, chunks) in [
        ("pixels.png", vec![]),
        ("profile.png", vec![profile]),
        ("text.png", vec![text; 20]),
        ("more-text.png", vec![more_text; 20]),
    ] {
        let chunks = [chunks, vec![pixels.clone()]].concat();
        let task = processed(&server, name, &png(16, 16, &chunks)).await;
        // Excess data is left compressed.
        assert_eq!(task["status"], "completed", "{name}: {task:#}");
    }
    assert_little_memory(&server);
}

/// A zlib stream of zeros, a thousandth of its unpacked size.
fn zeros(rows: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 65_535, rows);
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_filter(png::Filter::NoFilter);
    let mut writer = encoder.write_header().unwrap();
    let mut stream = writer.stream_writer().unwrap();
    (0..rows).for_each(|_| stream.write_all(&[0; 65_535]).unwrap());
    stream.finish().unwrap();
    writer.finish().unwrap();
    image_data(&file)
}

/// A sparse file with these bytes at these offsets.
fn write_sparse(server: &Server, name: &str, length: u64, parts: &[(u64, &[u8])]) {
    let file = File::create(server.folder().join(name)).unwrap();
    file.set_len(length).unwrap();
    for &(place, bytes) in parts {
        file.write_all_at(bytes, place).unwrap();
    }
}

#[tokio::test]
async fn profiles_and_metadata_that_are_too_large_are_left_out() {
    const LARGE: u32 = 600 << 20;
    let server = Server::start(&[]);
    let pixels = png_chunk(b"IDAT", &image_data(&png_of_zeros(16, 16)));
    let bomb = [b"profile\0\0", &zeros(19_000)[..]].concat();
    let profile = png_chunk(b"iCCP", &bomb);
    server.write("profile.png", png(16, 16, &[profile, pixels.clone()]));
    // The same for chunks that are large uncompressed, or not a profile at all.
    for name in [b"iCCP", b"tEXt"] {
        let chunk = png_chunk(name, &[b"name\0\0".to_vec(), vec![7; 40 << 20]].concat());
        let name = format!("{}.png", name.escape_ascii());
        server.write(&name, png(16, 16, &[chunk, pixels.clone()]));
    }

    let lossless = &encoded(ImageFormat::WebP)[12..];
    for (name, flag, kind) in [("profile.webp", 0x20, b"ICCP"), ("exif.webp", 0x08, b"EXIF")] {
        let mut head = [b"RIFF", &(LARGE + 30 + lossless.len() as u32).to_le_bytes()[..]].concat();
        head.extend(b"WEBPVP8X\x0a\0\0\0");
        head.extend([flag, 0, 0, 0, 15, 0, 0, 15, 0, 0]);
        head.extend([kind, &LARGE.to_le_bytes()[..]].concat());
        let end = head.len() as u64 + u64::from(LARGE);
        let length = end + lossless.len() as u64;
        write_sparse(&server, name, length, &[(0, &head), (end, lossless)]);
    }

    let mut tiff = encoded(ImageFormat::Tiff);
    // The tag SampleFormat (339) becomes the profile (34675), at the end of the file.
    let entry = tiff.windows(4).position(|tag| tag == b"\x53\x01\x03\0").unwrap();
    let place = (tiff.len() as u32).next_multiple_of(16);
    tiff[entry..entry + 4].copy_from_slice(b"\x73\x87\x07\0");
    tiff[entry + 4..entry + 8].copy_from_slice(&(30_u32 << 20).to_le_bytes());
    tiff[entry + 8..entry + 12].copy_from_slice(&place.to_le_bytes());
    write_sparse(&server, "profile.tiff", u64::from(place) + (30 << 20), &[(0, &tiff)]);

    for name in ["profile.png", "iCCP.png", "tEXt.png", "profile.webp", "exif.webp", "profile.tiff"]
    {
        let task = process(&server, name).await;
        assert_eq!(task["status"], "completed", "{name}: {task:#}");
        assert_little_memory(&server);
    }
}

#[tokio::test]
async fn a_jpeg_that_goes_over_its_pixels_again_and_again_is_refused() {
    let server = Server::start(&[]);
    let mut jpeg = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
    encoder.set_progressive(true);
    encoder.encode(&[0; 16 * 16 * 3], 16, 16, jpeg_encoder::ColorType::Rgb).unwrap();
    let task = processed(&server, "in.jpg", &jpeg).await;
    assert_eq!(task["status"], "completed", "{task:#}");
    let scan = jpeg.windows(2).rposition(|marker| marker == b"\xFF\xDA").unwrap();
    let scan = &jpeg[scan..jpeg.len() - 2].to_vec();
    jpeg.truncate(jpeg.len() - 2);
    (0..200).for_each(|_| jpeg.extend(scan));
    jpeg.extend(b"\xFF\xD9");
    std::fs::remove_file(server.folder().join("out.png")).unwrap();
    let error = refused(&server, "scans.jpg", &jpeg).await;
    assert_eq!(error, "cannot decode image `scans.jpg`: it has more than 100 scans");
}

#[tokio::test]
async fn nothing_and_next_to_nothing_is_refused() {
    let server = Server::start(&[]);
    for format in FORMATS {
        let name = format!("{format:?}");
        let whole = encoded(format);
        for length in [0, 1, 2, 4, 8, 12, 16, 24, 30, 40, whole.len() / 2, whole.len() * 3 / 4] {
            refused(&server, &name, &whole[..length]).await;
        }
        // Lossless WebP cannot encode a size of zero.
        if format != ImageFormat::WebP {
            for (width, height) in [(0, 0), (0, 16), (16, 0)] {
                refused(&server, &name, &claiming(format, width, height)).await;
            }
        }
    }
    assert_little_memory(&server);
}
