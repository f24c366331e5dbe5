//! Exit codes scripts rely on.

use tempfile::TempDir;

use crate::cli::program::{Ended, ask, ask_at};
use crate::cli::stub::{answering, response};
use crate::common::{self, Server, dummy, endless};

const UNKNOWN: &str = "01a20732-f5d8-72b0-90ab-6e8c0dbec33e";

#[tokio::test]
async fn how_a_task_ends_is_the_exit_code() {
    let server = Server::start(&[]);
    let quick = ["submit", "--wait", "dummy_short", "-p", "duration=0"];
    let completed = ask(&server, &quick).with(0);
    assert!(completed.stdout.contains("Task completed successfully"), "{completed}");
    assert_eq!(ask(&server, &[&quick[..], &["--json"]].concat()).json()["status"], "completed");
    let missing = ["submit", "--wait", "tokenize", "--input", "absent", "--output", "out"];
    let failed = ask(&server, &[&missing[..], &["--json", "-p", "sleep_duration=0"]].concat());
    let failed = failed.with(1);
    assert_eq!(failed.json()["status"], "failed");
    assert!(failed.stderr.contains("failed 10% Task failed"), "{failed}");
    let cancelled = server.submit(endless()).await;
    server.delete(&format!("/tasks/{cancelled}")).await;
    server.wait_for(&cancelled, "cancelled").await;
    ask(&server, &["watch", &cancelled]).with(2);
    let failed = failed.json()["task_id"].as_str().unwrap().to_owned();
    let watched = ask(&server, &["watch", &cancelled, &failed, &cancelled]).with(1);
    assert_eq!(watched.stdout.lines().count(), 3, "a header, and each task once: {watched}");
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_is_64() {
    let server = Server::start(&[]);
    for args in [
        &["submit"][..],
        &["submit", "dummy_short", "-p", "steps"],
        &["submit", "dummy_short", "--parameters", "[]"],
        &["submit", "dummy_short", "--timeout", "nan"],
        &["get", "7"],
        &["list", "--limit", "many"],
        &["list", "--status", "runing"],
        &["frobnicate"],
        &["--lisn", "127.0.0.1:0"],
    ] {
        let refused = ask(&server, args).with(64);
        assert!(!refused.stderr.is_empty(), "{args:?}");
    }
    ask_at("localhost:8000", server.folder(), &["list"]).with(64);
    for help in [&["--help"][..], &["submit", "--help"], &["--version"]] {
        assert!(!ask(&server, help).with(0).stdout.is_empty());
    }
}

#[tokio::test]
async fn a_refused_submission_is_64_and_names_every_field() {
    let server = Server::start(&[]);
    let refused =
        ask(&server, &["submit", "dummy_short", "-p", "duration=long", "-p", "stepz=3"]).with(64);
    for line in [
        "task-server: parameters.duration: Input should be a number",
        "task-server: parameters.stepz: unknown field `stepz`, did you mean `steps`?",
    ] {
        assert!(refused.stderr.lines().any(|said| said == line), "{refused}");
    }
    assert_eq!(refused.stdout, "");
}

#[tokio::test]
async fn a_submission_that_another_task_is_in_the_way_of_is_75() {
    let server = Server::start(&[]);
    server.write("in.txt", "some text");
    let writing = ["submit", "tokenize", "--input", "in.txt", "--output", "out", "-p"];
    ask(&server, &[&writing[..], &["sleep_duration=1000000"]].concat()).with(0);
    let refused = ask(&server, &[&writing[..], &["sleep_duration=0"]].concat()).with(75);
    assert!(refused.stderr.contains("same output_file_path"), "{refused}");

    let server = Server::start(&["--exclusive"]);
    let id = server.submit(endless()).await;
    let refused = ask(&server, &["submit", "dummy_short", "-p", "duration=0"]).with(75);
    assert!(refused.stderr.contains("already running"), "{refused}");
    ask(&server, &["cancel", &id]).with(0);
    server.wait_for(&id, "cancelled").await;
    ask(&server, &["submit", "dummy_short", "-p", "duration=0"]).with(0);
}

#[tokio::test]
async fn a_submission_that_is_too_large_is_64() {
    let server = Server::start(&[]);
    server.write("large.json", format!(r#"{{"encoding": "{}"}}"#, "x".repeat(2 << 20)));
    let large = ["submit", "tokenize", "--parameters", "@large.json"];
    ask(&server, &large).with(64);
}

#[tokio::test]
async fn what_is_not_there_or_in_another_state_is_65() {
    let server = Server::start(&[]);
    for verb in ["get", "watch", "cancel", "retry"] {
        let unknown = ask(&server, &[verb, UNKNOWN]).with(65);
        assert!(unknown.stderr.contains("Task not found"), "{unknown}");
    }
    let id = server.submit(endless()).await;
    let unfinished = ask(&server, &["retry", &id]).with(65);
    assert!(unfinished.stderr.contains("cancel it first"), "{unfinished}");
}

#[tokio::test]
async fn one_unknown_task_does_not_end_the_watching_of_another() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.5)).await;
    let watched = ask(&server, &["watch", UNKNOWN, &id]).with(65);
    assert!(watched.stdout.contains(&format!("{id}  completed")), "{watched}");
    assert!(watched.stderr.contains(&format!("{UNKNOWN}: Task not found")), "{watched}");
}

#[tokio::test]
async fn a_missing_file_of_parameters_is_66() {
    let server = Server::start(&[]);
    let missing = ask(&server, &["submit", "dummy_short", "--parameters", "@absent.json"]);
    assert!(missing.with(66).stderr.contains("`absent.json`"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_69() {
    let folder = TempDir::new().unwrap();
    for args in [&["list"][..], &["submit", "dummy_short"], &["watch", UNKNOWN]] {
        // Port 1 has no listener.
        let ended = ask_at("http://127.0.0.1:1", folder.path(), args).with(69);
        assert!(ended.stderr.contains("cannot reach http://127.0.0.1:1"), "{ended}");
    }
}

#[tokio::test]
async fn a_server_without_tls_behind_https_is_69() {
    let server = Server::start(&[]);
    let url = format!("https://{}", server.address());
    ask_at(&url, server.folder(), &["list"]).with(69);
}

#[tokio::test]
async fn other_answers_have_codes_of_their_own() {
    let folder = TempDir::new().unwrap();
    let list = |status: &'static str, content_type: &'static str, body: &'static str| -> Ended {
        let url = answering(move |_, _| response(status, content_type, body));
        ask_at(&url, folder.path(), &["list"])
    };
    let json = "application/json";
    list("500 Internal Server Error", json, r#"{"detail":"internal error"}"#).with(70);
    let busy = list("503 Service Unavailable", json, r#"{"detail":"shutting down"}"#).with(75);
    assert_eq!(busy.stderr, "task-server: shutting down\n");
    // For example a host name in --url that the server does not accept.
    list("421 Misdirected Request", json, r#"{"detail":"unknown host"}"#).with(64);
    list("429 Too Many Requests", json, r#"{"detail":"try later"}"#).with(75);
    list("502 Bad Gateway", "text/html", "<h1>Bad gateway</h1>").with(69);
    list("200 OK", "text/html", "<h1>A router</h1>").with(76);
    list("404 Not Found", "text/html", "<h1>Nothing</h1>").with(76);
    list("409 Conflict", "text/html", "<h1>Conflict</h1>").with(76);
    let moved = answering(|_, _| {
        "HTTP/1.1 308 Permanent Redirect\r\nlocation: https://tasks.example/\r\n\
         content-length: 0\r\nconnection: close\r\n\r\n"
            .to_owned()
    });
    let moved = ask_at(&moved, folder.path(), &["list"]).with(76);
    assert!(moved.stderr.contains("https://tasks.example/"), "{moved}");
}

#[tokio::test]
async fn no_permission_is_77() {
    let folder = TempDir::new().unwrap();
    let new = |args: &[&str]| -> String {
        let made: Ended = common::run(folder.path(), &[&["key", "new"], args].concat(), &[]).into();
        made.with(0).id()
    };
    let full = new(&["--name", "full"]);
    let reader = new(&["--name", "reader", "--read-only"]);
    let server = Server::start_in(folder, &["--api-key-file", "keys"], &[]);
    let with_key = |key: &str, args: &[&str]| -> Ended {
        let env = [("TASK_SERVER_URL", &*server.url("")), ("TASK_SERVER_API_KEY", key)];
        common::run(server.folder(), args, &env).into()
    };
    let submit = ["submit", "dummy_short", "-p", "duration=0"];
    let asked = ask(&server, &["list"]).with(77);
    assert!(asked.stderr.contains("TASK_SERVER_API_KEY"), "{asked}");
    with_key("wrong", &["list"]).with(77);
    with_key(&reader, &["list"]).with(0);
    with_key(&reader, &submit).with(77);
    with_key(&full, &submit).with(0);
    ask(&server, &["list", "--api-key", &full]).with(0);
    let help = with_key(&full, &["list", "--help"]).with(0);
    assert!(!help.stdout.contains(&full), "help shows the key");
}
