//! `run`: one task without a server.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::cli::program::{Ended, Started};
use crate::common;

const TOKENIZE: [&str; 8] =
    ["run", "tokenize", "-p", "sleep_duration=0", "--input", "in.txt", "--output", "out.json"];

fn run(folder: &Path, args: &[&str]) -> Ended {
    common::run(folder, args, &[]).into()
}

/// Names of the files in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_task_that_completes_leaves_its_output_alone() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("in.txt"), "some text").unwrap();
    let ended = run(folder.path(), &TOKENIZE).with(0);
    assert!(ended.stdout.contains("Task completed successfully"), "{ended}");
    assert!(ended.stderr.contains("completed 100%"), "{ended}");
    assert_eq!(names(folder.path()), ["in.txt", "out.json"]);
    let ended = run(folder.path(), &[&TOKENIZE[..], &["--json"]].concat()).with(0);
    assert_eq!(ended.json()["result"]["token_count"], 2);
}

#[test]
fn a_task_that_fails_is_1_and_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let failed = run(folder.path(), &TOKENIZE).with(1);
    assert!(failed.stdout.contains("in.txt"), "{failed}");
    let slow = ["run", "dummy_short", "-p", "duration=1e6", "--timeout", "0.1", "--json"];
    let slow = run(folder.path(), &slow).with(1);
    assert_eq!(slow.json()["status"], "failed", "{slow}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_submission_is_checked_as_the_server_does() {
    let folder = TempDir::new().unwrap();
    let refused = run(folder.path(), &["run", "dummy_short", "-p", "stepz=1", "-p", "steps=x"]);
    let refused = refused.with(64);
    for line in [
        "task-server: parameters.stepz: unknown field `stepz`, did you mean `steps`?",
        "task-server: parameters.steps: Input should be a whole number",
    ] {
        assert!(refused.stderr.lines().any(|said| said == line), "{refused}");
    }
    let unknown = run(folder.path(), &["run", "dummy_shirt"]).with(64);
    assert!(unknown.stderr.contains("did you mean `dummy_short`?"), "{unknown}");
    let missing = run(folder.path(), &["run", "tokenize"]).with(64);
    assert!(missing.stderr.contains("input_file_path: Field required"), "{missing}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn paths_are_kept_inside_the_roots() {
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let input = other.path().join("in.txt");
    std::fs::write(&input, "some text").unwrap();
    let mut args = TOKENIZE.to_vec();
    args[5] = input.to_str().unwrap();
    let outside = run(folder.path(), &args).with(64);
    assert!(outside.stderr.contains("input_file_path: "), "{outside}");
    args.extend(["--root", other.path().to_str().unwrap()]);
    run(folder.path(), &args).with(0);
    // State files of a server in this folder are protected here too.
    std::fs::write(folder.path().join("tasks.db"), "").unwrap();
    std::fs::write(folder.path().join("ours.toml"), "database = 'ours.db'\n").unwrap();
    let config = [&args[..], &["--config", "ours.toml"]].concat();
    for (mut args, file) in [(args, "tasks.db"), (config.clone(), "ours.db"), (config, "ours.toml")]
    {
        args[7] = file;
        let state = run(folder.path(), &args).with(64);
        assert!(state.stderr.contains("output_file_path: "), "{state}");
    }
}

#[test]
fn ctrl_c_cancels_the_task() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("in.txt"), "some text").unwrap();
    let mut args = TOKENIZE.to_vec();
    args[3] = "sleep_duration=1000000";
    args.push("--json");
    let mut running = Started::new("", folder.path(), &args);
    running.until("running");
    running.interrupt();
    let ended = running.end().with(2);
    assert_eq!(ended.json()["status"], json!("cancelled"), "{ended}");
    assert!(ended.stderr.contains("cancelling the task"), "{ended}");
    assert_eq!(names(folder.path()), ["in.txt"]);
}
