//! Runs of the whole task on small generated images.

mod formats;
mod frames;
mod jpeg;
mod limits;
mod refusals;

use std::io::Cursor;

use image::codecs::png::PngEncoder;
use image::{DynamicImage, GrayImage, ImageEncoder, ImageFormat, ImageReader, Luma, RgbImage};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::ImageProcessTask;
use super::fit::Fit;
use super::format::Format;
use crate::task::testing::TestRun;
use crate::task::{Task, TaskError, TaskResult};

/// All input formats.
const FORMATS: [ImageFormat; 6] = [
    ImageFormat::Bmp,
    ImageFormat::Gif,
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::Tiff,
    ImageFormat::WebP,
];

/// A folder with images.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn draw(&self, name: &str, image: &DynamicImage) {
        image.save(self.0.path().join(name)).unwrap();
    }

    fn open(&self, name: &str) -> DynamicImage {
        let reader = ImageReader::open(self.0.path().join(name)).unwrap();
        reader.with_guessed_format().unwrap().decode().unwrap()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).unwrap()
    }

    fn length(&self, name: &str) -> u64 {
        std::fs::metadata(self.0.path().join(name)).unwrap().len()
    }

    async fn process(&self, input: &str, output: &str, task: ImageProcessTask) -> TaskResult {
        TestRun::new(self.0.path(), Some(input), Some(output)).run(Box::new(task)).await
    }

    /// Error of an input that the task refuses permanently.
    async fn refusal(&self, input: &str) -> String {
        match self.process(input, "out.png", to(Format::Png, 4, 3)).await {
            Err(TaskError::Failed { message, permanent: true }) => message,
            other => panic!("`{input}` was not refused for good: {other:?}"),
        }
    }
}

fn to(format: Format, width: u32, height: u32) -> ImageProcessTask {
    ImageProcessTask { width, height, format: Some(format), quality: 85, fit: Fit::Stretch }
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// An image that does not compress.
fn speckled(width: u32, height: u32) -> DynamicImage {
    let shade = |x: u32, y: u32| (x * 7919 + y * 104_729 + x * y * 31) as u8;
    RgbImage::from_fn(width, height, |x, y| [shade(x, y), shade(y, x), shade(x, x + y)].into())
        .into()
}

#[tokio::test]
async fn an_image_is_resized_and_converted() {
    let desk = Desk::new();
    desk.draw("in.png", &speckled(40, 30));
    let run = TestRun::new(desk.0.path(), Some("in.png"), Some("made/for/it/out.jpg"));
    let result = run.run(Box::new(to(Format::Jpeg, 8, 6))).await.unwrap();
    assert_eq!(
        result,
        json!({
            "message": "Image processed successfully",
            "input_file": "in.png",
            "output_file": "made/for/it/out.jpg",
            "original_size": [40, 30],
            "new_size": [8, 6],
            "format": "JPEG",
            "format_source": "parameter",
            "frames": 1,
            "file_size_bytes": desk.length("made/for/it/out.jpg"),
        })
    );
    let output = desk.open("made/for/it/out.jpg");
    assert_eq!((output.width(), output.height()), (8, 6));
    assert_eq!(run.progress.read().percent, 90.0);
    assert_eq!(run.progress.read().message, "Saving output");
}

#[tokio::test]
async fn an_image_decoded_in_stripes_comes_out_as_one_decoded_whole() {
    let desk = Desk::new();
    let tall = speckled(500, 1030);
    for (kind, image) in [("rgb", tall.clone()), ("grey", tall.into_luma8().into())] {
        desk.draw("in.png", &image);
        desk.draw("in.bmp", &image);
        for (input, output) in [("in.png", "stripes.png"), ("in.bmp", "whole.png")] {
            let result = desk.process(input, output, to(Format::Png, 8, 206)).await.unwrap();
            assert_eq!(result["original_size"], json!([500, 1030]), "{kind}");
        }
        // A grey BMP is read back as RGB.
        let [stripes, whole] = ["stripes.png", "whole.png"].map(|name| desk.open(name).into_rgb8());
        assert!(stripes == whole, "{kind}");
    }
}

#[tokio::test]
async fn proportions_are_kept_if_so_asked() {
    // Black, with a white square in the middle.
    let wide =
        GrayImage::from_fn(90, 30, |x, _| Luma([if (30..60).contains(&x) { 255 } else { 0 }]));
    let desk = Desk::new();
    desk.draw("wide.png", &wide.clone().into());
    desk.draw("wide.bmp", &wide.into());
    for input in ["wide.png", "wide.bmp"] {
        for (fit, size) in
            [(Fit::Stretch, [10, 10]), (Fit::Contain, [10, 3]), (Fit::Cover, [10, 10])]
        {
            let task = ImageProcessTask { fit, ..to(Format::Png, 10, 10) };
            let result = desk.process(input, "out.png", task).await.unwrap();
            assert_eq!(result["original_size"], json!([90, 30]));
            assert_eq!(result["new_size"], json!(size));
            let output = desk.open("out.png").into_luma8();
            assert_eq!([output.width(), output.height()], size);
            let corner = if fit == Fit::Cover { 255 } else { 0 };
            assert_eq!(output.get_pixel(0, 0).0, [corner], "{input} {fit:?}");
        }
    }
}

#[tokio::test]
async fn a_cancelled_run_leaves_no_output() {
    let desk = Desk::new();
    desk.draw("in.png", &speckled(40, 30));
    let run = TestRun::new(desk.0.path(), Some("in.png"), Some("out.jpg"));
    run.token.cancel();
    let result = run.run(Box::new(to(Format::Jpeg, 8, 6))).await;
    assert!(matches!(result, Err(TaskError::Cancelled)));
    assert_eq!(std::fs::read_dir(desk.0.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn quality_is_paid_for_in_bytes() {
    let desk = Desk::new();
    desk.draw("in.png", &speckled(64, 64));
    let mut lengths = Vec::new();
    for quality in [1, 50, 85, 100] {
        let task = ImageProcessTask { quality, ..to(Format::Jpeg, 64, 64) };
        let result = desk.process("in.png", "out.jpg", task).await.unwrap();
        lengths.push(result["file_size_bytes"].as_u64().unwrap());
    }
    assert!(lengths.is_sorted_by(|less, more| less < more), "{lengths:?}");
}

#[tokio::test]
async fn exif_orientation_is_applied() {
    // The upright position of the first stored pixel for each value of the tag.
    let (left, right, top, bottom) = (0, 2, 0, 1);
    for (orientation, corner) in [
        (1, (left, top)),
        (2, (right, top)),
        (3, (right, bottom)),
        (4, (left, bottom)),
        (5, (left, top)),
        (6, (right, top)),
        (7, (right, bottom)),
        (8, (left, bottom)),
    ] {
        let desk = Desk::new();
        let (width, height) = if orientation < 5 { (3, 2) } else { (2, 3) };
        let mut stored = GrayImage::new(width, height);
        stored.put_pixel(0, 0, Luma([255]));
        let mut bytes = Vec::new();
        let mut encoder = PngEncoder::new(&mut bytes);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        stored.write_with_encoder(encoder).unwrap();
        desk.put("in.png", &bytes);

        let result = desk.process("in.png", "out.png", to(Format::Png, 3, 2)).await.unwrap();
        assert_eq!(result["original_size"], json!([3, 2]), "orientation {orientation}");
        let mut upright = GrayImage::new(3, 2);
        upright.put_pixel(corner.0, corner.1, Luma([255]));
        assert_eq!(desk.open("out.png").into_luma8(), upright, "orientation {orientation}");
    }
}

/// EXIF with the orientation alone.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    exif
}

/// Faulty fields of these parameters, with what was expected.
fn faults(parameters: Value) -> Vec<(String, String)> {
    let task: ImageProcessTask = serde_json::from_value(parameters).unwrap();
    let faults = task.validate().err().unwrap_or_default();
    faults.faults().map(|(field, expected)| (field.to_owned(), expected.to_owned())).collect()
}

#[test]
fn sizes_that_a_format_cannot_hold_are_named() {
    let fault = |field: &str, expected: &str| (field.to_owned(), expected.to_owned());
    assert_eq!(faults(json!({ "width": 800, "height": 600, "format": "jpeg", "quality": 1 })), []);
    assert_eq!(faults(json!({ "width": 16_384, "height": 1, "format": null, "quality": 1 })), []);
    assert_eq!(
        faults(json!({ "width": 16_384, "height": 1, "format": "webp", "quality": 85 })),
        [fault("width", "at most 16383 for WebP")]
    );
    assert_eq!(
        faults(json!({ "width": 20_000, "height": 20_000, "format": "png", "quality": 85 })),
        [fault("height", "at most 10000 at this width")]
    );
}
