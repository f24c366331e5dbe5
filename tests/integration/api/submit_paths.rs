//! `POST /tasks` with invalid paths.

use std::os::unix::fs::symlink;

use serde_json::json;
use tempfile::TempDir;

use crate::common::{Server, tokenize};

/// The only error of a tokenize task with these paths.
async fn path_fault(server: &Server, input: &str, output: &str) -> String {
    server.post("/tasks", &tokenize(input, output)).await.only_fault()
}

#[tokio::test]
async fn missing_paths_are_both_named() {
    let server = Server::start(&[]);
    for task_type in ["tokenize", "image_process"] {
        let faults = server.post("/tasks", &json!({ "task_type": task_type })).await.faults();
        assert_eq!(faults.len(), 2, "{faults:#?}");
        assert!(faults[0].starts_with("missing body.input_file_path: "), "{faults:#?}");
        assert!(faults[1].starts_with("missing body.output_file_path: "), "{faults:#?}");
    }
}

#[tokio::test]
async fn missing_paths_are_named_beside_faulty_parameters() {
    let server = Server::start(&[]);
    let body = json!({ "task_type": "tokenize", "parameters": { "sleep_duration": -1 } });
    let faults = server.post("/tasks", &body).await.faults();
    assert_eq!(faults.len(), 3, "{faults:#?}");
}

#[tokio::test]
async fn a_path_outside_the_roots_is_told_which_root_to_add() {
    let server = Server::start(&[]);
    let fault = path_fault(&server, "/elsewhere/data/in.txt", "out.json").await;
    assert!(fault.contains(" body.input_file_path: "), "{fault}");
    assert!(fault.contains("--root /elsewhere/data"), "{fault}");
    let fault = path_fault(&server, "/else where/o'clock/in.txt", "out.json").await;
    assert!(fault.contains(r"--root '/else where/o'\''clock'"), "{fault}");
    let fault = path_fault(&server, "in.txt", "/elsewhere/results/out.json").await;
    assert!(fault.contains(" body.output_file_path: "), "{fault}");
    assert!(fault.contains("--root /elsewhere/results"), "{fault}");
}

#[tokio::test]
async fn a_home_folder_is_left_to_the_shell() {
    let server = Server::start(&[]);
    for path in ["~/in.txt", "~", "~ann/in.txt"] {
        for (input, output) in [(path, "out.json"), ("in.txt", path)] {
            let fault = path_fault(&server, input, output).await;
            assert!(fault.contains("only shells expand `~`"), "{path}: {fault}");
            assert!(fault.contains(&format!("`./{path}`")), "{path}: {fault}");
        }
    }
    server.submit(tokenize("./~/in.txt", "./~out.json")).await;
}

#[tokio::test]
async fn dots_do_not_lead_out_of_the_roots() {
    let server = Server::start(&[]);
    let inside = server.folder().file_name().unwrap().to_str().unwrap();
    for path in ["../secret.txt", "sub/../../secret.txt", "..", "/../etc/passwd"] {
        for (input, output) in [(path, "out.json"), ("in.txt", path)] {
            let fault = path_fault(&server, input, output).await;
            assert!(fault.contains("--root "), "{path}: {fault}");
        }
    }
    server.submit(tokenize(&format!("../{inside}/in.txt"), "sub/../out.json")).await;
}

#[tokio::test]
async fn a_symbolic_link_does_not_lead_out_of_the_roots() {
    let server = Server::start(&[]);
    let outside = TempDir::new().unwrap();
    std::fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    symlink(outside.path(), server.folder().join("link")).unwrap();
    symlink(outside.path().join("secret.txt"), server.folder().join("file-link")).unwrap();
    for (input, output) in
        [("link/secret.txt", "out.json"), ("file-link", "out.json"), ("in.txt", "link/out.json")]
    {
        let fault = path_fault(&server, input, output).await;
        assert!(fault.contains("--root "), "{input}, {output}: {fault}");
    }
}

#[tokio::test]
async fn further_roots_can_be_allowed() {
    let data = TempDir::new().unwrap();
    std::fs::write(data.path().join("in.txt"), "some text").unwrap();
    let server = Server::start(&["--root", ".", "--root", data.path().to_str().unwrap()]);
    let input = data.path().join("in.txt").display().to_string();
    let output = data.path().join("new/folder/out.json").display().to_string();
    let id = server.submit(tokenize(&input, &output)).await;
    let task = server.wait_for(&id, "completed").await;
    assert_eq!(task["input_file_path"], input, "as it was sent");
    assert!(data.path().join("new/folder/out.json").is_file());
}

#[tokio::test]
async fn the_output_may_not_be_the_input_however_it_is_spelt() {
    let server = Server::start(&[]);
    server.write("in.txt", "some text");
    symlink("in.txt", server.folder().join("link.txt")).unwrap();
    let absolute = server.folder().join("in.txt").display().to_string();
    for output in ["in.txt", "./in.txt", "sub/../in.txt", "link.txt", &absolute] {
        let fault = path_fault(&server, "in.txt", output).await;
        assert!(fault.contains(" body.output_file_path: "), "{output}: {fault}");
        assert!(fault.contains("input"), "{output}: {fault}");
    }
}

#[tokio::test]
async fn the_database_is_neither_output_nor_input() {
    let server = Server::start(&[]);
    server.write("in.txt", "some text");
    symlink("tasks.db", server.folder().join("innocent.json")).unwrap();
    let database = server.folder().join("tasks.db");
    std::fs::hard_link(&database, server.folder().join("hard.json")).unwrap();
    let absolute = database.display().to_string();
    for output in [
        "tasks.db",
        "./tasks.db",
        "tasks.db-wal",
        "tasks.db-shm",
        "innocent.json",
        "hard.json",
        &absolute,
    ] {
        let fault = path_fault(&server, "in.txt", output).await;
        assert!(fault.contains(" body.output_file_path: "), "{output}: {fault}");
        assert!(fault.contains("server's own files"), "{output}: {fault}");
    }
    let fault = path_fault(&server, "tasks.db", "out.json").await;
    assert!(fault.contains(" body.input_file_path: "), "{fault}");
}

#[tokio::test]
async fn a_task_does_not_write_the_settings_of_the_next_start() {
    let server = Server::start(&[]);
    let fault = path_fault(&server, "in.txt", "task-server.toml").await;
    assert!(fault.contains("server's own files"), "{fault}");
}

#[tokio::test]
async fn a_path_that_no_file_can_have_is_refused() {
    let server = Server::start(&[]);
    for path in ["", "with\0nul"] {
        let fault = path_fault(&server, path, "out.json").await;
        assert!(fault.contains(" body.input_file_path: "), "{fault}");
        let fault = path_fault(&server, "in.txt", path).await;
        assert!(fault.contains(" body.output_file_path: "), "{fault}");
    }
}

#[tokio::test]
async fn an_output_that_is_a_folder_is_refused() {
    let server = Server::start(&[]);
    std::fs::create_dir(server.folder().join("sub")).unwrap();
    for output in ["sub", "sub/", ".", "new/"] {
        let fault = path_fault(&server, "in.txt", output).await;
        assert!(fault.contains(" body.output_file_path: "), "{output}: {fault}");
        assert!(fault.contains("folder"), "{output}: {fault}");
    }
}

#[tokio::test]
async fn an_absent_input_is_met_when_the_task_runs() {
    let server = Server::start(&[]);
    let id = server.submit(tokenize("not/there.txt", "out.json")).await;
    let task = server.wait_for(&id, "failed").await;
    let error = task["error"].as_str().unwrap();
    assert!(error.contains("not/there.txt"), "{error}");
    assert_eq!(task["message"], format!("Task failed: {error}"));
}

#[tokio::test]
async fn a_folder_as_input_is_met_when_the_task_runs() {
    let server = Server::start(&[]);
    std::fs::create_dir(server.folder().join("sub")).unwrap();
    let id = server.submit(tokenize("sub", "out.json")).await;
    let task = server.wait_for(&id, "failed").await;
    let error = task["error"].as_str().unwrap();
    assert!(error.contains("`sub`") && error.contains("folder"), "{error}");
}
