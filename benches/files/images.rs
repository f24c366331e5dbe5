//! `image_process` against Pillow.

use std::fs;
use std::path::Path;

use image::RgbImage;
use serde_json::json;

use crate::common::server::folder;
use crate::picture::{HEIGHT, WIDTH, paint, save_jpeg, save_png};
use crate::pillow::Pillow;
use crate::report::{Round, Row};
use crate::task::TaskServer;

const ROUNDS: usize = 7;
const JPEG_TARGET: f64 = 1.7;
const PNG_TARGET: f64 = 4.0;
/// Allowed difference of a sample from Pillow's in levels of 255, because both round.
const TOLERANCE: u8 = 2;

pub(crate) async fn measure(is_wanted: &impl Fn(&str) -> bool, push: &mut impl FnMut(Row)) {
    if !is_wanted("image_process") {
        return;
    }
    match Pillow::start() {
        Some(pillow) => println!("reference for images: Pillow {}", pillow.version),
        None => println!("NO PILLOW in PYTHON or python3: image_process has no reference"),
    }
    let picture = paint();
    let folder = folder();
    let (jpeg, png) = (folder.path().join("picture.jpg"), folder.path().join("picture.png"));
    save_jpeg(&picture, &jpeg);
    save_png(&picture, &png);
    drop(picture);
    push(compare("image_process JPEG", &jpeg, JPEG_TARGET).await);
    push(compare("image_process PNG", &png, PNG_TARGET).await);
}

/// Resizes a picture with both, in turns, without changing its format.
async fn compare(name: &str, input: &Path, target: f64) -> Row {
    let what = format!("{name} {WIDTH}x{HEIGHT} to 800x600");
    println!("measuring {what}");
    println!("  input {}", kilobytes(input));
    let extension = input.extension().unwrap().to_str().unwrap();
    let folder = input.parent().unwrap();
    let output = |who: &str| folder.join(format!("{who}.{extension}"));
    let (ours, theirs) = (output("ours"), output("pillow"));
    let parameters = json!({ "width": 800, "height": 600, "format": extension, "quality": 85 });
    let server = TaskServer::start(folder);
    let mut pillow = Pillow::start();
    let before = server.cpu_seconds();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(Round {
            ours: server.run("image_process", &parameters, (input, &ours)).await,
            reference: pillow.as_mut().map(|pillow| pillow.run((input, &theirs))),
        });
    }
    println!("  output {}", kilobytes(&ours));
    if pillow.is_some() {
        println!("  output of Pillow {}", kilobytes(&theirs));
        let difference = greatest_difference(&ours, &theirs);
        println!("  no sample differs from Pillow's by more than {difference} levels of 255");
        // JPEG decoders may round differently; PNG decoders may not.
        assert!(extension != "png" || difference <= TOLERANCE);
    }
    Row {
        what,
        amount: f64::from(WIDTH) * f64::from(HEIGHT) / 1e6,
        unit: "megapixels",
        rounds,
        target: Some(target),
        cpu_seconds: (server.cpu_seconds() - before) / ROUNDS as f64,
        peak_memory: server.peak_memory(),
        memory_target: pillow.map(|pillow| pillow.peak_memory),
    }
}

fn kilobytes(path: &Path) -> String {
    format!("{:.1} kB", fs::metadata(path).unwrap().len() as f64 / 1e3)
}

fn greatest_difference(ours: &Path, theirs: &Path) -> u8 {
    let [ours, theirs]: [RgbImage; 2] =
        [ours, theirs].map(|path| image::open(path).unwrap().into_rgb8());
    assert_eq!(ours.dimensions(), theirs.dimensions());
    ours.iter().zip(theirs.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}
