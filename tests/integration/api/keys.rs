//! API keys: authentication and read-only keys.

use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Answer, Server, dummy, endless, refusal, run, tokenize};

const KEY: &str = "7f3a9c1e5b8d2046f1a7c3e9d5b08264a6c8e0f2143658790badcfe1325476981";
const OTHER_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn guarded() -> Server {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("keys"), format!("{KEY}\n\n{OTHER_KEY}\n")).unwrap();
    Server::start_in(folder, &["--api-key-file", "keys"], &[])
}

async fn get_as(server: &Server, path: &str, authorization: &str) -> Answer {
    server.send(server.request(Method::GET, path).header("authorization", authorization)).await
}

#[tokio::test]
async fn a_guarded_server_wants_one_of_its_keys() {
    let server = guarded();
    for path in ["/tasks", "/tasks/current/info", "/task-types", "/nowhere"] {
        let answer = server.get(path).await;
        assert!(answer.error(401).contains("Bearer"), "{path}: {answer}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{path}: {answer}");
    }
    let answer = server.post("/tasks", &dummy(0.0)).await;
    assert!(!answer.error(401).is_empty(), "{answer}");
    for authorization in [
        "Bearer wrong",
        "Bearer ",
        "Bearer",
        KEY,
        &format!("Basic {KEY}"),
        &format!("Bearer {KEY}0"),
    ] {
        let answer = get_as(&server, "/tasks", authorization).await;
        assert!(!answer.error(401).is_empty(), "{authorization}: {answer}");
    }
    for authorization in [format!("Bearer {KEY}"), format!("bearer {OTHER_KEY}")] {
        let answer = get_as(&server, "/tasks", &authorization).await;
        assert_eq!(answer.status, 200, "{answer}");
    }
}

#[tokio::test]
async fn the_probes_of_a_guarded_server_stay_open() {
    let server = guarded();
    for path in ["/health/live", "/health/ready"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer}");
    }
}

#[tokio::test]
async fn pages_can_ask_a_guarded_server_for_permission() {
    let server = guarded();
    let origin = "http://localhost:3000";
    let preflight = server
        .request(Method::OPTIONS, "/tasks")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    let answer = server.send(preflight).await;
    assert!([200, 204].contains(&answer.status), "{answer}");
    let refused = server.send(server.request(Method::GET, "/tasks").header("origin", origin)).await;
    assert_eq!(refused.status, 401, "{refused}");
    assert_eq!(refused.header("access-control-allow-origin"), origin, "{refused}");
}

#[tokio::test]
async fn the_key_file_is_neither_input_nor_output() {
    let server = guarded();
    for (input, output, field) in
        [("keys", "out.json", "input_file_path"), ("in.txt", "./keys", "output_file_path")]
    {
        let request = server.request(Method::POST, "/tasks").bearer_auth(KEY);
        let answer = server.send(request.json(&tokenize(input, output))).await;
        assert!(answer.only_fault().contains(&format!(" body.{field}: ")), "{answer}");
    }
}

#[test]
fn a_key_file_without_a_key_is_refused() {
    let folder = TempDir::new().unwrap();
    let (code, said) = refusal(folder.path(), &["--api-key-file", "absent"], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("absent"), "{said}");
    // A read-only line without its end.
    let cut = format!("# ours\nsha256:{}\n", "0".repeat(64));
    std::fs::write(folder.path().join("cut"), cut).unwrap();
    let (code, said) = refusal(folder.path(), &["--api-key-file", "cut"], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("line 2 of `cut`") && said.contains("NAME read-only"), "{said}");
    std::fs::write(folder.path().join("empty"), "\n  \n").unwrap();
    let (code, said) = refusal(folder.path(), &["--api-key-file", "empty"], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("empty"), "{said}");
}

/// Starts a server with the keys `writer` and `reader`; returns both.
fn with_two_keys(args: &[&str], env: &[(&str, &str)]) -> (Server, String, String) {
    let folder = TempDir::new().unwrap();
    let writer = new_key(&folder, &["--name", "writer"]);
    let reader = new_key(&folder, &["--name", "reader", "--read-only"]);
    let args = [&["--api-key-file", "keys"], args].concat();
    (Server::start_in(folder, &args, env), writer, reader)
}

fn new_key(folder: &TempDir, args: &[&str]) -> String {
    let output = run(folder.path(), &[&["key", "new"], args].concat(), &[]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

async fn call(server: &Server, key: &str, method: Method, path: &str, body: Value) -> Answer {
    server.send(server.request(method, path).bearer_auth(key).json(&body)).await
}

#[tokio::test]
async fn a_read_only_key_looks_and_changes_nothing() {
    let (server, writer, reader) = with_two_keys(&[], &[]);
    let submitted = call(&server, &writer, Method::POST, "/tasks", endless()).await;
    assert_eq!(submitted.status, 200, "{submitted}");
    let task = format!("/tasks/{}", submitted.body["task_id"].as_str().unwrap());

    for path in [&task, "/tasks", "/tasks/current/info", "/task-types"] {
        for method in [Method::GET, Method::HEAD] {
            let answer = call(&server, &reader, method, path, Value::Null).await;
            assert_eq!(answer.status, 200, "{path}: {answer}");
        }
    }
    for (method, path) in [
        (Method::POST, "/tasks"),
        // Stores nothing, but reveals which files exist.
        (Method::POST, "/tasks?dry_run=true"),
        (Method::POST, &format!("{task}/retry")),
        (Method::POST, "/tasks/cancel?status=pending,running"),
        (Method::DELETE, &task),
        (Method::PUT, "/tasks"),
    ] {
        let answer = call(&server, &reader, method.clone(), path, dummy(0.0)).await;
        let detail = answer.error(403);
        assert!(detail.contains("`reader` is read-only"), "{method} {path}: {answer}");
        let challenge = answer.header("www-authenticate");
        assert!(challenge.contains("insufficient_scope"), "{method} {path}: {answer}");
    }
    let seen = call(&server, &writer, Method::GET, "/tasks", Value::Null).await;
    assert_eq!(seen.body.as_array().unwrap().len(), 1, "{seen}");
    assert_eq!(seen.body[0]["cancel_requested_at"], Value::Null, "{seen}");
    assert_eq!(call(&server, &writer, Method::DELETE, &task, json!({})).await.status, 200);
}

/// Polls with this key until the response has this status.
async fn until_status(server: &Server, key: &str, status: u16) {
    let begin = Instant::now();
    loop {
        let answer = get_as(server, "/tasks", &format!("Bearer {key}")).await;
        if answer.status == status {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(100), "still {answer}");
    }
}

/// Waits for a line in the log.
async fn until_log(server: &Server, text: &str) {
    let begin = Instant::now();
    while !server.log().contains(text) {
        assert!(begin.elapsed() < Duration::from_secs(100), "{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn keys_come_and_go_without_a_restart() {
    let folder = TempDir::new().unwrap();
    let first = new_key(&folder, &["--name", "first"]);
    let mut server = Server::start_in(folder, &["--api-key-file", "keys"], &[]);
    let file = server.folder().join("keys");
    let only_first = std::fs::read_to_string(&file).unwrap();
    until_status(&server, &first, 200).await;

    let output = run(server.folder(), &["key", "new", "--name", "second"], &[]);
    let second = String::from_utf8(output.stdout).unwrap();
    let second = second.trim_end();
    until_status(&server, second, 200).await;
    let both = std::fs::read_to_string(&file).unwrap();

    // Revoked, although the file has an invalid line.
    server.write("keys", both.replace(&only_first, "sha256:oops\n"));
    until_status(&server, &first, 401).await;
    until_status(&server, second, 200).await;

    // The last key can be revoked too.
    server.write("keys", "# nobody\n");
    until_status(&server, second, 401).await;

    server.write("keys", &only_first);
    until_status(&server, &first, 200).await;
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    until_status(&server, &first, 200).await;

    // The file is followed again after it was replaced by something else for a while.
    std::fs::remove_dir(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    until_log(&server, "not a regular file").await;
    std::fs::remove_file(&file).unwrap();
    server.write("keys", "# nobody\n");
    until_status(&server, &first, 401).await;
    server.terminate();
    assert!(server.wait_exit().success());
    let log = server.log();
    assert!(log.contains("line 1 of `keys` is not of the form"), "{log}");
    assert!(log.contains("no API key left"), "{log}");
}

#[tokio::test]
async fn keys_appear_in_no_log_no_answer_and_no_database() {
    let (mut server, writer, reader) = with_two_keys(&[], &[("RUST_LOG", "trace")]);
    let wrong = format!("{writer}0");
    server.write("in.txt", "text");
    let submitted =
        call(&server, &writer, Method::POST, "/tasks", tokenize("in.txt", "out.json")).await;
    let task = format!("/tasks/{}", submitted.body["task_id"].as_str().unwrap());
    let mut answers = vec![submitted];
    for key in [&writer, &reader, &wrong] {
        for (method, path) in [
            (Method::GET, task.as_str()),
            (Method::GET, "/nowhere"),
            (Method::POST, "/tasks"),
            (Method::PATCH, "/tasks"),
            (Method::DELETE, &task),
        ] {
            let body = json!({ "task_type": "nonsense" });
            answers.push(call(&server, key, method, path, body).await);
        }
    }
    assert!(answers.iter().any(|answer| answer.status == 401));
    server.terminate();
    assert!(server.wait_exit().success());

    let mut places: Vec<_> = answers.iter().map(|answer| answer.to_string().into_bytes()).collect();
    let log = server.log();
    assert!(log.contains("DEBUG") && log.contains("answered"), "{log}");
    places.push(log.into_bytes());
    for entry in std::fs::read_dir(server.folder()).unwrap() {
        places.push(std::fs::read(entry.unwrap().path()).unwrap());
    }
    for key in [&writer, &reader] {
        // Without the prefix all keys share.
        let secret = &key.as_bytes()[3..];
        for place in &places {
            let found = place.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{}", String::from_utf8_lossy(place));
        }
    }
}

#[tokio::test]
async fn the_openapi_document_says_what_needs_a_key() {
    let (server, ..) = with_two_keys(&[], &[]);
    let document = server.get("/openapi.json").await.body;
    assert_eq!(document["components"]["securitySchemes"]["api_key"]["scheme"], "bearer");
    assert_eq!(document["security"], json!([{ "api_key": [] }]));
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let responses = &operation["responses"];
            let open = path == "/" || path.starts_with("/health/");
            // An empty requirement means that the operation needs no key.
            let said = operation.get("security") == Some(&json!([{}]));
            assert_eq!(said, open, "{method} {path}: {operation:#}");
            assert_eq!(responses.get("401").is_some(), !open, "{method} {path}");
            assert_eq!(responses.get("403").is_some(), method != "get", "{method} {path}");
        }
    }
    let document = Server::start(&[]).get("/openapi.json").await.body;
    assert_eq!(document.get("security"), None, "this server needs no keys");
}

#[tokio::test]
async fn a_stream_does_not_outlive_its_key() {
    let server = guarded();
    let request = server.request(Method::GET, "/events").bearer_auth(OTHER_KEY);
    let stream = request.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    server.write("keys", format!("{KEY}\n"));
    // A regular end, not an error in the middle.
    stream.text().await.unwrap();
    let answer = get_as(&server, "/events", &format!("Bearer {OTHER_KEY}")).await;
    assert!(!answer.error(401).is_empty(), "{answer}");
}
