//! The guide's files for the tasks folder, and the classes of the service that this one is a port of.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{blocks, run_curl};
use crate::common::Server;
use crate::common::blocks::fenced_blocks;
use crate::common::skips::skip;

/// Word for word as the ported service's guide has them.
const MY_CUSTOM_TASK: &str = include_str!("ported/my_custom_task.py");
const IMAGE_PROCESS_TASK: &str = include_str!("ported/image_process_task.py");

/// A server with these files in its tasks folder.
fn server_with(files: &[(&str, &str)]) -> Server {
    let folder = TempDir::new().unwrap();
    let tasks = folder.path().join("tasks.d");
    fs::create_dir(&tasks).unwrap();
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(&tasks, 0o755);
    for (name, text) in files {
        fs::write(tasks.join(name), text).unwrap();
        set_mode(&tasks.join(name), 0o644);
    }
    // A virtual environment in the tasks folder is used without being named.
    if let Some(environment) = environment() {
        symlink(environment, tasks.join(".venv")).unwrap();
    }
    Server::start_in(folder, &[], &[])
}

/// The virtual environment with the packages for these tests, as `.ci/run` sets it.
fn environment() -> Option<PathBuf> {
    Some(Path::new(&std::env::var_os("CLIENT_TOOLS")?).join("python"))
}

/// Whether Python can import this module.
fn python_has(module: &str) -> bool {
    let python =
        environment().map_or("python3".into(), |environment| environment.join("bin/python"));
    let python = Command::new(python).args(["-c", &format!("import {module}")]).output();
    python.is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn the_files_of_the_guide_are_tasks_that_work() {
    if !python_has("asyncio") {
        return skip("python3 is not installed");
    }
    let files = blocks::tasks_folder();
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let server = server_with(&files);
    server.write("text.txt", "a few long words\nand another long line\nthe end\n");
    for (task_type, output, result) in [
        ("long_words", "words\nanother", json!({ "words": 10, "long_words": 2 })),
        ("count_lines", "2\n", json!({ "lines": 2 })),
    ] {
        let curl = blocks::block("bash", task_type);
        let curl = curl.replace("http://localhost:8000", &server.url(""));
        let answer = run_curl(&server, &curl).await;
        let id = answer["task_id"].as_str().unwrap_or_else(|| panic!("refused: {answer:#}"));
        let task = server.wait_for(id, "completed").await;
        assert_eq!(task["result"], result, "{task:#}");
        let path = task["output_file_path"].as_str().unwrap();
        assert_eq!(fs::read_to_string(server.folder().join(path)).unwrap(), output);
    }
    let repeat = json!({ "task_type": "repeat", "parameters": { "text": "ab" } });
    let id = server.submit(repeat).await;
    assert_eq!(server.wait_for(&id, "completed").await["result"], json!({ "text": "ababab" }));
    let wrong = json!({ "task_type": "repeat", "parameters": { "text": "ab", "times": 0 } });
    assert!(server.post("/tasks", &wrong).await.only_fault().contains("parameters.times"));
}

#[tokio::test]
async fn the_task_on_the_first_screen_of_the_readme_works() {
    if !python_has("asyncio") {
        return skip("python3 is not installed");
    }
    const README: &str = include_str!("../../../README.md");
    let class = fenced_blocks(README).into_iter().find(|block| block.language == "python").unwrap();
    let server = server_with(&[("shout.py", &class.text)]);
    server.write("in.txt", "one\ntwo\n");
    let task = json!({
        "task_type": "shout", "input_file_path": "in.txt", "output_file_path": "out.txt",
    });
    let id = server.submit(task).await;
    assert_eq!(server.wait_for(&id, "completed").await["result"], json!({ "lines": 2 }));
    assert_eq!(fs::read_to_string(server.folder().join("out.txt")).unwrap(), "ONE\nTWO");
}

#[tokio::test]
async fn the_class_of_the_ported_guide_works_unchanged() {
    if !python_has("asyncio") {
        return skip("python3 is not installed");
    }
    let server = server_with(&[("my_custom_task.py", MY_CUSTOM_TASK)]);
    server.write("input.txt", "hello");
    let task = json!({
        "task_type": "my_custom_task",
        "parameters": { "param1": "custom_value" },
        "input_file_path": "input.txt",
        "output_file_path": "output.json",
    });
    let id = server.submit(task.clone()).await;
    let info = server.wait_for(&id, "completed").await;
    let result = &info["result"];
    assert_eq!(result["message"], "Task completed successfully");
    assert_eq!((&result["items_processed"], &result["custom_metric"]), (&json!(10), &json!(10)));
    let path = server.folder().canonicalize().unwrap().join("output.json");
    assert_eq!(result["output_file"], path.to_str().unwrap());
    let types = server.get("/task-types").await.body;
    let types = types.as_array().unwrap();
    let listed = types.iter().find(|one| one["task_type"] == "my_custom_task").unwrap();
    assert!(listed["description"].as_str().unwrap().starts_with("Description of"), "{listed:#}");
    // It sleeps a second, and is cancelled meanwhile.
    let id = server.submit(task).await;
    server.until(&format!("/tasks/{id}"), |info| info["progress"] == 10.0).await;
    server.delete(&format!("/tasks/{id}")).await;
    server.wait_for(&id, "cancelled").await;
}

#[tokio::test]
async fn the_image_class_of_the_ported_guide_works_unchanged() {
    if !python_has("PIL") {
        return skip("Pillow is not installed");
    }
    let server = server_with(&[("image_process_task.py", IMAGE_PROCESS_TASK)]);
    image::RgbaImage::new(600, 400).save(server.folder().join("clear.png")).unwrap();
    let task = json!({
        "task_type": "image_process_task",
        "parameters": { "width": 60, "height": 40 },
        "input_file_path": "clear.png",
        "output_file_path": "new/small.jpg",
    });
    let id = server.submit(task).await;
    let info = server.wait_for(&id, "completed").await;
    let result: &Value = &info["result"];
    assert_eq!(result["original_size"], json!([600, 400]), "{info:#}");
    assert_eq!(result["new_size"], json!([60, 40]));
    let made = fs::read(server.folder().join("new/small.jpg")).unwrap();
    assert_eq!(result["file_size_bytes"], made.len());
    let made = image::load_from_memory(&made).unwrap().into_rgb8();
    assert_eq!(made.dimensions(), (60, 40));
}
