//! Configuration: where it comes from, and what is said of a faulty one.

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
