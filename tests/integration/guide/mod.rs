//! The contributor guide, followed to the letter: its code blocks are applied to a copy of the
//! sources, the copy is built, and the built server must do what the guide says.
//!
//! The purpose of a block follows its language, where Markdown viewers do not show it:
//! - `rust title="FILE"` is a new file, or text to append to it. A file `x.rs` replaces a folder
//!   `x/`: this way the one-file example replaces the task it is a short form of.
//! - `diff title="FILE"` adds its `+` lines to a file; see [`blocks::patched`].
//! - `rust` without a title is a method of a task or a few statements from one. All of them are
//!   compiled as one more file of the copy, see [`blocks::snippets`].
//! - `bash` and `json` are input and output of a user.
//! - `python`, `toml` and `sh` with the title `tasks.d/FILE` are files of the tasks folder.

mod blocks;
mod programs;
mod workshop;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

const GUIDE: &str = include_str!("../../../docs/TASK_DEVELOPMENT.md");

/// Runs a curl line of the guide, or sends its body directly if curl is missing. Returns the
/// response.
async fn run_curl(server: &Server, line: &str) -> Value {
    let script = format!("{} --silent --show-error --noproxy '*'", line.trim_end());
    match Command::new("sh").args(["-c", &script]).output().unwrap() {
        output if output.status.success() => serde_json::from_slice(&output.stdout).unwrap(),
        output if output.status.code() == Some(127) => {
            eprintln!("curl is not installed: sending its body directly");
            let (_, body) = line.split_once("-d '").unwrap();
            server.post_text("/tasks", body.split('\'').next().unwrap()).await.body
        }
        output => panic!("curl failed: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[tokio::test]
async fn the_guide_leads_to_a_task_that_works() {
    let Some(binary) = workshop::build(blocks::apply_guide().tree, blocks::snippets()) else {
        crate::common::skips::skip("cargo is not installed");
        return;
    };
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let here = |text: String| text.replace("/path/to", &path);
    assert!(blocks::block("bash", "cargo run").contains(r#"echo "hello" > /path/to/input.txt"#));
    fs::write(folder.path().join("input.txt"), "hello\n").unwrap();
    image::RgbaImage::new(40, 30).save(folder.path().join("clear.png")).unwrap();
    let args = ["--root", &path, "--log-format", "json"];
    let mut server = Server::start_binary(&binary, TempDir::new().unwrap(), &args);

    let curl = here(blocks::block("bash", "my_custom_task"));
    let answer = run_curl(&server, &curl.replace("http://localhost:8000", &server.url(""))).await;
    let id = answer["task_id"].as_str().unwrap_or_else(|| panic!("refused: {answer:#}"));
    let task = server.wait_for(id, "completed").await;
    let shown: Value =
        serde_json::from_str(&here(blocks::block("json", "items_processed"))).unwrap();
    assert_eq!(task["result"], shown);
    let output = fs::read(folder.path().join("output.json")).unwrap();
    assert_eq!(shown["custom_metric"], output.len());
    let items: Vec<String> = serde_json::from_slice(&output).unwrap();
    assert_eq!(items, vec!["custom_value: hello"; 42]);

    let types = server.get("/task-types").await.body;
    let mut types = types.as_array().unwrap().iter();
    let listed = types.find(|one| one["task_type"] == "my_custom_task").unwrap();
    assert!(listed["description"].as_str().unwrap().starts_with("Writes the input"), "{listed:#}");
    assert_eq!(listed["parameters"]["properties"]["param2"]["default"], 42);

    let mut image = json!({
        "task_type": "image_process",
        "input_file_path": "clear.png",
        "output_file_path": "new/white.jpg",
        "parameters": { "width": 20, "height": 10 },
    });
    let id = server.submit(image.clone()).await;
    let result = server.wait_for(&id, "completed").await["result"].take();
    assert_eq!(result["original_size"], json!([40, 30]), "{result:#}");
    assert_eq!(result["new_size"], json!([20, 10]));
    assert_eq!(result["format"], "JPEG");
    let made = fs::read(folder.path().join("new/white.jpg")).unwrap();
    assert_eq!(result["file_size_bytes"], made.len());
    let made = image::load_from_memory(&made).unwrap().into_rgb8();
    assert_eq!(made.dimensions(), (20, 10));
    assert!(made.iter().all(|sample| *sample > 250), "transparent pixels are not white");

    image["parameters"] = json!({ "quality": 101 });
    let refused = server.post("/tasks", &image).await.only_fault();
    assert!(refused.contains("body.parameters.quality"), "{refused}");

    server.terminate();
    assert!(server.wait_exit().success());
    let log = server.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for said in ["opened the image", "wrote the image"] {
        let line = lines.iter().find(|line| line["fields"]["message"] == said).unwrap();
        assert_eq!(line["span"]["task.id"], *id, "{line:#}");
        assert_eq!(line["span"]["task.type"], "image_process", "{line:#}");
    }
}

#[test]
fn a_new_task_is_one_file_and_three_lines() {
    let applied = blocks::apply_guide();
    assert_eq!(applied.new_files, ["src/tasks/my_task.rs"]);
    let files: Vec<_> =
        applied.added_lines.iter().map(|line| line.split(':').next().unwrap()).collect();
    let expected = ["src/task/types.rs", "src/tasks/registry.rs", "src/tasks/mod.rs"];
    assert_eq!(files, expected, "{:#?}", applied.added_lines);
}

#[test]
fn the_signatures_in_the_guide_are_those_of_the_sources() {
    let sources = workshop::sources();
    let sources = ["src/task/mod.rs", "src/task/context.rs", "src/task/parallel.rs"].map(|file| {
        let text = str::from_utf8(&sources[Path::new(file)]).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    let methods = GUIDE.lines().filter_map(|line| line.strip_prefix("#### `"));
    let methods = methods.map(|line| line.split('`').next().unwrap().to_owned());
    let getters = GUIDE.lines().filter_map(|line| line.strip_prefix("- `ctx."));
    let getters = getters
        .map(|line| format!("fn {}", line.split('`').next().unwrap().replace("()", "(&self)")));
    let signatures: Vec<_> = methods.chain(getters).collect();
    assert!(signatures.len() > 15, "{signatures:#?}");
    for signature in signatures {
        let found = sources.iter().any(|source| source.contains(&signature));
        assert!(found, "the sources do not contain `{signature}`");
    }
}
