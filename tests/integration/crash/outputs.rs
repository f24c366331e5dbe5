//! Input files of tasks, and the expected outputs.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, RgbImage};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::common::{Server, tokenize};

/// Lines per text: from a single write to many, and one that takes longer to write than to compute.
const TEXTS: [usize; 3] = [1, 300, 5_000];
/// Width and height of the images, from one stripe to many.
const IMAGES: [(u32, u32); 2] = [(16, 9), (900, 700)];
/// Number of inputs, texts first.
pub(crate) const INPUTS: usize = TEXTS.len() + IMAGES.len();
/// Folder of the outputs, below the server's folder.
const FOLDER: &str = "out";

/// Each input and its output from an undisturbed run.
pub(crate) struct Outputs {
    inputs: Vec<Vec<u8>>,
    expected: Vec<Vec<u8>>,
}

impl Outputs {
    /// Creates each output once on an undisturbed server.
    pub(crate) fn prepare(runtime: &Runtime) -> Self {
        let line = "The quick brown fox jumps over the lazy dog, 12345 times.\n";
        let texts = TEXTS.iter().map(|lines| line.repeat(*lines).into_bytes());
        let inputs = texts.chain(IMAGES.iter().map(|sides| png(*sides))).collect();
        let mut outputs = Self { inputs, expected: Vec::new() };
        let server = Server::start(&[]);
        outputs.write_inputs(server.folder());
        for input in 0..INPUTS {
            runtime.block_on(async {
                let id = server.submit(submission(input, 0)).await;
                server.wait_for(&id, "completed").await;
            });
            let file = server.folder().join(output_name(input, 0));
            outputs.expected.push(fs::read(file).unwrap());
        }
        outputs
    }

    pub(crate) fn write_inputs(&self, folder: &Path) {
        for (input, bytes) in self.inputs.iter().enumerate() {
            fs::write(folder.join(input_name(input)), bytes).unwrap();
        }
    }

    /// Compares all published files; returns their number and the mismatches.
    pub(crate) fn check(&self, folder: &Path) -> (usize, Vec<String>) {
        let mut checked = 0;
        let mut wrong = Vec::new();
        for name in names(folder).iter().filter(|name| !name.ends_with(".part")) {
            checked += 1;
            let found = fs::read(folder.join(FOLDER).join(name)).unwrap();
            let input: usize = name.split('-').next().unwrap().parse().unwrap();
            if found != self.expected[input] {
                let (found, expected) = (found.len(), self.expected[input].len());
                wrong.push(format!(
                    "output {name} has {found} bytes that differ from the {expected} expected"
                ));
            }
        }
        (checked, wrong)
    }
}

/// Names of the files in the output folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder.join(FOLDER)) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

pub(crate) fn submission(input: usize, output: usize) -> serde_json::Value {
    if is_image(input) {
        return json!({
            "task_type": "image_process",
            "parameters": { "width": 300, "height": 200, "format": "PNG" },
            "input_file_path": input_name(input),
            "output_file_path": output_name(input, output),
        });
    }
    let mut body = tokenize(&input_name(input), &output_name(input, output));
    // The smallest vocabulary, because each server loads it again.
    body["parameters"]["encoding"] = "r50k_base".into();
    body
}

fn is_image(input: usize) -> bool {
    input >= TEXTS.len()
}

fn input_name(input: usize) -> String {
    format!("in-{input}.{}", if is_image(input) { "png" } else { "txt" })
}

/// Starts with the number of the input, which determines the expected content.
fn output_name(input: usize, output: usize) -> String {
    format!("{FOLDER}/{input}-{output}.{}", if is_image(input) { "png" } else { "json" })
}

/// A compressible image.
fn png((width, height): (u32, u32)) -> Vec<u8> {
    let pixel = |x: u32, y: u32| image::Rgb([x * y, x + y, x ^ y].map(|it| it as u8));
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_fn(width, height, pixel).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}
