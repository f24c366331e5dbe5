//! Sources of the configuration, and errors about invalid values.

use serde_json::json;
use tempfile::TempDir;

use crate::common::{Server, endless, refusal};

#[test]
fn faulty_flags_are_named_with_what_was_expected() {
    let folder = TempDir::new().unwrap();
    for (args, said) in [
        (["--listen", "nonsense"], "nonsense"),
        (["--max-running", "0"], "max-running"),
        (["--max-running", "many"], "--max-running"),
        (["--max-runing", "1"], "--max-running"),
        (["--shutdown-grace", "soon"], "--shutdown-grace"),
        (["--retention", "30"], "30d"),
        (["--log-retention", "7"], "7d"),
        (["--log-space", "500"], "500MB"),
        (["--log-format", "xml"], "json"),
        (["--root", "absent"], "absent"),
        (["--cors-origin", "not an origin"], "not an origin"),
        (["--database", "absent/tasks.db"], "absent/tasks.db"),
    ] {
        let (code, text) = refusal(folder.path(), &args, &[]);
        assert!([Some(1), Some(64)].contains(&code), "{args:?}: {code:?} {text}");
        assert!(text.contains(said), "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{args:?}: {text}");
    }
}

#[test]
fn a_faulty_environment_is_named() {
    let folder = TempDir::new().unwrap();
    let (code, said) = refusal(folder.path(), &[], &[("TASK_SERVER_MAX_RUNNING", "many")]);
    assert!([Some(1), Some(64)].contains(&code), "{said}");
    assert!(said.contains("many"), "{said}");
}

#[test]
fn a_faulty_configuration_file_is_named_with_its_fault() {
    for (text, said) in [
        ("max-runing = 1\n", "max-runing"),
        ("max-running = \"many\"\n", "max-running"),
        ("max-running =\n", "task-server.toml"),
        ("retension = \"30d\"\n", "did you mean `retention`?"),
        ("retention = 30\n", "\"30d\""),
    ] {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("task-server.toml"), text).unwrap();
        let (code, output) = refusal(folder.path(), &["--listen", "127.0.0.1:0"], &[]);
        assert!([Some(1), Some(64)].contains(&code), "{text}: {output}");
        assert!(output.contains(said), "{text}: {output}");
        assert!(output.contains("task-server.toml"), "{text}: {output}");
    }
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
    let folder = || {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("task-server.toml"), "exclusive = true\n").unwrap();
        folder
    };
    let server = Server::start_in(folder(), &[], &[]);
    server.submit(endless()).await;
    assert_eq!(server.post("/tasks", &endless()).await.status, 409, "the file counts");

    let server = Server::start_in(folder(), &[], &[("TASK_SERVER_EXCLUSIVE", "false")]);
    server.submit(endless()).await;
    server.submit(endless()).await;

    let server = Server::start_in(
        folder(),
        &["--database", "flag.db"],
        &[("TASK_SERVER_DATABASE", "environment.db"), ("TASK_SERVER_EXCLUSIVE", "false")],
    );
    assert!(server.folder().join("flag.db").exists(), "a flag wins over the environment");
    assert!(!server.folder().join("environment.db").exists());
}

#[tokio::test]
async fn the_database_lies_in_the_working_directory_unless_told_otherwise() {
    let server = Server::start(&[]);
    server.submit(endless()).await;
    assert!(server.folder().join("tasks.db").is_file());
}

#[tokio::test]
async fn the_log_of_the_start_says_what_the_server_works_with() {
    let folder = TempDir::new().unwrap();
    let settings = "root = 'data'\nlimit = 'tokenize=2'\nretention = '30d'\n";
    std::fs::write(folder.path().join("task-server.toml"), settings).unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let server = Server::start_in(folder, &[], &[]);
    let line = server.until_logged(&["starting"]);
    for part in
        ["task-server.toml", "tasks.db", "/data\"", "tokenize=2", "30d", "max_pending=100000"]
    {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[tokio::test]
async fn a_failed_task_is_in_the_log_with_its_id_its_type_and_its_error() {
    let server = Server::start(&[]);
    std::fs::write(server.folder().join("broken.png"), "no picture").unwrap();
    let submission = json!({
        "task_type": "image_process",
        "input_file_path": "broken.png",
        "output_file_path": "out.png",
        "parameters": { "width": 1, "height": 1 },
    });
    let id = server.submit(submission).await;
    let error = server.wait_for(&id, "failed").await["error"].as_str().unwrap().to_owned();
    server.until_logged(&["WARN", &id, "image_process", &error, "task failed"]);
}
