//! `GET /tasks/{id}/output`: the published file.

use std::fs;
use std::os::unix::fs::symlink;

use reqwest::Method;

use crate::common::{Answer, Server, endless, tokenize};

/// Starts a server with a completed task that wrote `output`; returns the path of that output.
async fn with_output(output: &str) -> (Server, String) {
    let server = Server::start(&[]);
    server.write("in.txt", "some text");
    let id = server.submit(tokenize("in.txt", output)).await;
    server.wait_for(&id, "completed").await;
    (server, format!("/tasks/{id}/output"))
}

async fn get_with(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = server.request(Method::GET, path);
    let add = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    server.send(headers.iter().fold(request, add)).await
}

#[tokio::test]
async fn an_output_is_read_as_it_was_published() {
    let (server, path) = with_output("out/tokens.json").await;
    let written = fs::read_to_string(server.folder().join("out/tokens.json")).unwrap();
    let answer = server.get(&path).await;
    assert_eq!((answer.status, &answer.text), (200, &written), "{answer}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("content-length"), written.len().to_string());
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert_eq!(
        answer.header("content-disposition"),
        "inline; filename=\"tokens.json\"; filename*=UTF-8''tokens.json"
    );
    let head = server.send(server.request(Method::HEAD, &path)).await;
    assert_eq!((head.status, &*head.text), (200, ""), "{head}");
    assert_eq!(head.header("content-length"), written.len().to_string());
}

#[tokio::test]
async fn a_range_of_an_output_is_read() {
    let (server, path) = with_output("tokens.json").await;
    server.write("tokens.json", "0123456789");
    let tag = server.get(&path).await.header("etag").to_owned();
    for (range, text, content_range) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=4-400", "456789", "bytes 4-9/10"),
    ] {
        let answer = get_with(&server, &path, &[("range", range), ("if-range", &tag)]).await;
        assert_eq!((answer.status, &*answer.text), (206, text), "{range}: {answer}");
        assert_eq!(answer.header("content-range"), content_range);
        assert_eq!(answer.header("content-length"), text.len().to_string());
        assert_eq!(answer.header("etag"), tag);
    }
    for headers in [
        [("range", "bytes=0-3"), ("if-range", "\"another\"")],
        [("range", "bytes=0-3"), ("if-range", "Mon, 23 Nov 2026 11:00:00 GMT")],
        [("range", "bytes=0-1,4-5"), ("if-range", &tag)],
        [("range", "bytes=3-0"), ("if-range", &tag)],
    ] {
        let answer = get_with(&server, &path, &headers).await;
        assert_eq!((answer.status, &*answer.text), (200, "0123456789"), "{headers:?}: {answer}");
    }
    let beyond = get_with(&server, &path, &[("range", "bytes=10-")]).await;
    assert!(beyond.error(416).contains("10 bytes"), "{beyond}");
    assert_eq!(beyond.header("content-range"), "bytes */10");
}

#[tokio::test]
async fn an_output_that_the_client_has_is_not_sent_again() {
    let (server, path) = with_output("tokens.json").await;
    let first = server.get(&path).await;
    for (name, value) in [
        ("if-none-match", first.header("etag")),
        ("if-modified-since", first.header("last-modified")),
    ] {
        let again = get_with(&server, &path, &[(name, value)]).await;
        assert_eq!((again.status, &*again.text), (304, ""), "{name}: {again}");
    }
    fs::remove_file(server.folder().join("tokens.json")).unwrap();
    server.write("tokens.json", "another text");
    let changed = get_with(&server, &path, &[("if-none-match", first.header("etag"))]).await;
    assert_eq!((changed.status, &*changed.text), (200, "another text"), "{changed}");
}

#[tokio::test]
async fn no_output_runs_in_the_name_of_the_server() {
    for name in ["page.html", "image.svg", "text.xml", "page.json.xhtml", "noending", "a\"b.htm"] {
        let (server, path) = with_output(name).await;
        let answer = server.get(&path).await;
        assert_eq!(answer.status, 200, "{answer}");
        assert_eq!(answer.header("content-type"), "application/octet-stream", "{name}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(answer.header("content-disposition").starts_with("attachment; "), "{answer}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'; sandbox"), "{policy}");
    }
}

#[tokio::test]
async fn an_output_that_is_not_there_is_explained() {
    let server = Server::start(&[]);
    let unknown = server.get("/tasks/01a1a1a1-0000-7000-8000-000000000000/output").await;
    assert_eq!(unknown.error(404), "Task not found");
    let running = server.submit(endless()).await;
    let answer = server.get(&format!("/tasks/{running}/output")).await;
    assert!(answer.error(404).contains("only a completed one"), "{answer}");
    let failed = server.submit(tokenize("absent.txt", "out.json")).await;
    server.wait_for(&failed, "failed").await;
    let answer = server.get(&format!("/tasks/{failed}/output")).await;
    assert!(answer.error(404).contains("the task is failed"), "{answer}");
    let pathless = server.submit(crate::common::dummy(0.0)).await;
    server.wait_for(&pathless, "completed").await;
    let answer = server.get(&format!("/tasks/{pathless}/output")).await;
    assert!(answer.error(404).contains("no output_file_path"), "{answer}");
}

#[tokio::test]
async fn what_was_put_in_place_of_an_output_is_not_followed_out_of_the_roots() {
    let (server, path) = with_output("tokens.json").await;
    let place = server.folder().join("tokens.json");
    let outside = tempfile::NamedTempFile::new().unwrap();
    let database = server.folder().join("tasks.db");
    fs::remove_file(&place).unwrap();
    let gone = server.get(&path).await;
    assert!(gone.error(404).contains("`tokens.json`"), "{gone}");
    for target in [outside.path(), &database] {
        symlink(target, &place).unwrap();
        let answer = server.get(&path).await;
        assert!(answer.error(404).contains("can no longer be read"), "{answer}");
        fs::remove_file(&place).unwrap();
    }
    fs::create_dir(&place).unwrap();
    let folder = server.get(&path).await;
    assert!(folder.error(404).contains("is a folder"), "{folder}");
}
