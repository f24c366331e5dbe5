//! Malicious requests.

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Server, dummy, endless, tokenize};

/// Status of the response to a raw request; 0 without a response.
async fn status_of(server: &Server, request: impl AsRef<[u8]>) -> u16 {
    let answer = server.raw(request.as_ref()).await;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn the_server_answers_to_its_own_names_only() {
    let server = Server::start(&[]);
    let get = |host: &str| format!("GET /tasks HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    for host in [
        "localhost",
        "LocalHost",
        "localhost:8000",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:8000",
    ] {
        let status = status_of(&server, get(&format!("Host: {host}\r\n"))).await;
        assert_eq!(status, 200, "{host}");
    }
    for host in [
        "",
        ":8000",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "evil.localhost",
        "127.0.0.1.evil.example",
        "localhost.",
        "localhost:80:80",
        "localhost:80@evil.example",
        "localhost@evil.example",
        "evil.example#localhost",
        "evil.example/localhost",
        "localhost/",
        "localhost, evil.example",
        "localhost evil.example",
        "local\thost",
        "%6cocalhost",
        "l\u{43e}calhost",
        "\u{ff4c}ocalhost",
        "127.1",
        "127.0.0.2",
        "0.0.0.0",
        "0",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::]",
        "::1",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:0:0:1]",
        "[::1%25lo]",
        "<script>alert(1)</script>",
    ] {
        let status = status_of(&server, get(&format!("Host: {host}\r\n"))).await;
        assert!([400, 421].contains(&status), "{host}: {status}");
    }
    assert_eq!(status_of(&server, get("")).await, 421, "without a Host header");
    for two in ["Host: localhost\r\nHost: evil.example\r\n", "Host: evil\r\nHost: localhost\r\n"] {
        assert_eq!(status_of(&server, get(two)).await, 400, "{two}");
    }
    let absolute = "GET http://evil.example/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(status_of(&server, absolute).await, 421);
}

#[tokio::test]
async fn a_form_of_another_site_submits_nothing() {
    let server = Server::start(&[]);
    let body = dummy(0.0).to_string();
    for content_type in [
        "text/plain",
        "text/plain; charset=application/json",
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; application/json",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json+x",
        "application/json, text/plain",
        "text/json",
        "",
    ] {
        let request = server.request(Method::POST, "/tasks").header("content-type", content_type);
        let answer = server.send(request.body(body.clone())).await;
        assert!(answer.error(415).contains("application/json"), "{content_type}: {answer}");
    }
    let answer = server.send(server.request(Method::POST, "/tasks").body(body)).await;
    assert!(!answer.error(415).is_empty(), "without a content type: {answer}");
    assert_eq!(server.get("/tasks").await.body, json!([]));
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let server = Server::start(&[]);
    let running = server.submit(endless()).await;
    let requests = [
        (Method::POST, "/tasks?dry_run=false".to_owned()),
        (Method::POST, "/tasks/cancel?status=pending,running".to_owned()),
        (Method::POST, format!("/tasks/{running}/retry")),
        (Method::DELETE, format!("/tasks/{running}")),
    ];
    let own_port = server.address().rsplit(':').next().unwrap();
    let another_port = format!("http://localhost:1{own_port}");
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", ""),
        ("origin", "http://localhost.evil.example"),
        ("origin", "http://localhost:3000.evil.example"),
        ("origin", "http://localhost:3000/"),
        ("origin", "file://"),
        ("origin", &another_port),
        ("sec-fetch-site", "cross-site"),
    ] {
        for (method, path) in &requests {
            let request = server.request(method.clone(), path).header(name, value);
            let answer = server.send(request.json(&dummy(0.0))).await;
            assert!(!answer.error(403).is_empty(), "{name}: {value}: {answer}");
        }
    }
    assert_eq!(server.task(&running).await["cancel_requested_at"], Value::Null);
    assert_eq!(server.get("/tasks").await.body.as_array().unwrap().len(), 1);
    // An allowed page, one of the server's own, and a program that is not a browser.
    for (name, value) in [
        ("origin", "http://localhost:3000"),
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-site", "none"),
    ] {
        let request = server.request(Method::POST, "/tasks").header(name, value);
        let answer = server.send(request.json(&dummy(0.0))).await;
        assert_eq!(answer.status, 200, "{name}: {value}: {answer}");
    }
}

#[tokio::test]
async fn json_may_be_neither_deep_nor_large() {
    let server = Server::start(&[]);
    let submission = |duration: &str| {
        format!("{{\"task_type\":\"dummy_short\",\"parameters\":{{\"duration\":{duration}}}}}")
    };
    let deep = 100_000;
    let arrays = "[".repeat(deep) + &"]".repeat(deep);
    let objects = "{\"a\":".repeat(deep) + "1" + &"}".repeat(deep);
    for body in [
        "[".repeat(deep),
        "{\"a\":".repeat(deep),
        arrays.clone(),
        objects.clone(),
        submission(&arrays),
        submission(&objects),
        format!("{{\"task_type\":\"dummy_short\",\"tags\":{objects}}}"),
    ] {
        let fault = server.post_text("/tasks", body).await.only_fault();
        assert!(fault.starts_with("json_invalid body."), "{fault}");
    }
    // Deep, but within the limit.
    let arrays = "[".repeat(120) + &"]".repeat(120);
    let fault = server.post_text("/tasks", submission(&arrays)).await.only_fault();
    assert!(fault.starts_with("float_type body.parameters.duration: "), "{fault}");

    let text = format!("\"{}\"", "x".repeat(1024 * 1024));
    assert!(server.post_text("/tasks", submission(&text)).await.error(413).contains("1048576"));
    let chunked = format!(
        "POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n",
        text.len()
    );
    assert_eq!(status_of(&server, chunked).await, 413);
    let many: Vec<_> = (0..50_000).map(|number| format!("\"p{number}\":0")).collect();
    let many = format!("{{\"task_type\":\"dummy_short\",\"parameters\":{{{}}}}}", many.join(","));
    let answer = server.post_text("/tasks", many).await;
    assert!(!answer.faults().is_empty() && answer.text.len() < 100_000, "{}", answer.text.len());
}

#[tokio::test]
async fn what_is_almost_json_is_refused() {
    let server = Server::start(&[]);
    for body in [
        "",
        "\0",
        "null",
        "\u{feff}{\"task_type\":\"dummy_short\"}",
        "{\"task_type\":\"dummy_short\",}",
        "{\"task_type\":\"\\ud800\"}",
        "{\"task_type\":\"dummy_short\",\"task_type\":\"dummy_long\"}",
        "{\"task_type\":\"dummy_short\",\"parameters\":{\"duration\":NaN}}",
        "{\"task_type\":\"dummy_short\",\"parameters\":{\"duration\":1e999999}}",
        "{\"task_type\":\"dummy_short\",\"parameters\":{\"duration\":-1e308}}",
        "{\"task_type\":\"dummy_short\",\"parameters\":{\"steps\":1e3}}",
        "{\"task_type\":\"dummy_short\",\"parameters\":{\"steps\":18446744073709551616}}",
        "{\"task_type\":\"dummy_short\",\"priority\":2147483648}",
        "{\"task_type\":\"dummy_short\",\"timeout_seconds\":1e300}",
        "{\"task_type\":\"dummy_short\",\"run_at\":\"+999999-01-01T00:00:00Z\"}",
        "{\"task_type\":\"dummy_short\",\"__proto__\":{}}",
    ] {
        let answer = server.post_text("/tasks", body).await;
        assert!(!answer.faults().is_empty(), "{body:?}: {answer}");
    }
    let bytes = b"{\"task_type\":\"\xFF\xFE\"}".to_vec();
    let request = server.request(Method::POST, "/tasks").header("content-type", "application/json");
    assert!(!server.send(request.body(bytes)).await.faults().is_empty());
}

#[tokio::test]
async fn heads_may_not_be_large_and_have_to_be_heads() {
    let server = Server::start(&[]);
    let get = |path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")
    };
    let long = "x".repeat(500_000);
    for (request, statuses) in [
        (get(&format!("/tasks?tag.a={long}"), ""), [414, 431]),
        (get("/tasks", &format!("If-None-Match: {long}\r\n")), [431, 431]),
        (get("/tasks", &"a: b\r\n".repeat(1000)), [431, 431]),
        (get("/tasks\0", ""), [400, 400]),
        (get("/tasks", "Bad\0Header: x\r\n"), [400, 400]),
        (get("/tasks", "Prefer: \x1b[31m\r\n"), [400, 400]),
        (get("/tasks", "Content-Length: 1\r\nContent-Length: 2\r\n"), [400, 400]),
        (get("/tasks", "Content-Length: -1\r\n"), [400, 400]),
        ("GET /tasks HTTP/9.9\r\n\r\n".to_owned(), [400, 505]),
        ("\u{16}\u{3}\u{1}\u{2}\0\r\n\r\n".to_owned(), [400, 400]),
        // HTTP/2 connections are closed.
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), [0, 0]),
    ] {
        let status = status_of(&server, &request).await;
        assert!(statuses.contains(&status), "{status}: {:?}", &request[..request.len().min(100)]);
    }
    assert_eq!(server.get("/health/live").await.status, 200);
}

/// Strings an attacker may hope to see executed, rendered or printed to a terminal.
const STRINGS: [&str; 14] = [
    "\u{1b}[31mred\u{1b}[0m",
    "\u{1b}]0;title\u{7}",
    "\u{9b}31m\u{85}",
    "a\n2001-01-01T00:00:00.000000Z  INFO task_server::app: forged",
    "a\r\nforged: yes\r\n\r\n",
    "\u{8}\u{8}\u{8}\u{c}\u{7f}",
    "\u{202e}\u{2028}\u{2029}\u{feff}",
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'; DROP TABLE tasks; --",
    "\",\"level\":\"ERROR\",\"x\":\"",
    "{}%s%n${jndi:ldap://x}{{7*7}}",
    "\t\\\0\u{1}",
    "\u{1f600}\u{10ffff}",
];

/// Start of the log line that one of the strings tries to inject.
const FORGED: &str = "2001-01-01";

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Sends a string in every place; it has to come back unchanged or be refused.
async fn put_everywhere(server: &Server, string: &str) {
    let encoded = percent_encoded(string);
    let answer = server.post("/tasks", &json!({ "task_type": string })).await;
    assert_eq!(answer.body["detail"][0]["input"], string, "{answer}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{answer}");

    let mut body = dummy(0.0);
    body["tags"] = json!({ string: string });
    let id = server.submit(body).await;
    assert_eq!(server.wait_for(&id, "completed").await["tags"], json!({ string: string }));
    let found = server.get(&format!("/tasks?tag.{encoded}={encoded}")).await;
    assert_eq!(found.body[0]["task_id"], json!(id), "{found}");

    let parameters = json!({ string: string, "duration": string });
    let body = json!({ "task_type": "dummy_short", "parameters": parameters });
    assert_eq!(server.post("/tasks", &body).await.faults().len(), 2, "{string:?}");

    for (input, output) in [(string, "out.json"), ("in.txt", string)] {
        let answer = server.post("/tasks", &tokenize(input, output)).await;
        if answer.status == 200 {
            let id = answer.body["task_id"].as_str().unwrap();
            let task = server.get(&format!("/tasks/{id}?wait=60")).await.body;
            assert_eq!(
                (&task["input_file_path"], &task["output_file_path"]),
                (&json!(input), &json!(output))
            );
        } else {
            assert!(!answer.faults().is_empty(), "{answer}");
        }
    }

    for path in [
        format!("/tasks/{encoded}"),
        format!("/{encoded}"),
        format!("/tasks?status={encoded}"),
        format!("/tasks?{encoded}={encoded}"),
        format!("/tasks?cursor={encoded}&limit={encoded}&created_after={encoded}"),
        format!("/tasks/{id}?wait={encoded}"),
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = server.send(server.request(method, &path)).await;
            assert!([404, 405, 409, 422].contains(&answer.status), "{path}: {answer}");
            assert!(answer.header("content-type").starts_with("application/json"), "{answer}");
        }
    }

    // Some cannot be sent as a header; the others must do no harm.
    for header in ["idempotency-key", "prefer", "if-none-match", "origin", "authorization"] {
        let request = server.request(Method::POST, "/tasks?dry_run=true").json(&dummy(0.0));
        if let Ok(request) = request.header(header, string.as_bytes()).build() {
            let answer = server.send_built(request).await;
            assert!([200, 403, 422].contains(&answer.status), "{header}: {string:?}: {answer}");
        }
        let head = format!("POST /tasks HTTP/1.1\r\nHost: localhost\r\n{header}: {string}\r\n\r\n");
        let status = status_of(server, &head).await;
        assert!([400, 403, 415].contains(&status), "{header}: {string:?}: {status}");
    }
    let status = status_of(server, format!("GET /tasks/{string} HTTP/1.1\r\n\r\n")).await;
    assert!([400, 404, 421].contains(&status), "{string:?}: {status}");
}

/// Log of a server that received every string in every place.
async fn log_of_all_strings(format: &str) -> String {
    let args = ["--log-format", format];
    let env = [("RUST_LOG", "info,task_server=debug")];
    let mut server = Server::start_in(TempDir::new().unwrap(), &args, &env);
    server.write("in.txt", "some text");
    for string in STRINGS {
        put_everywhere(&server, string).await;
    }
    server.terminate();
    server.wait_exit();
    server.log()
}

#[tokio::test]
async fn no_string_breaks_a_line_of_the_log() {
    let log = log_of_all_strings("text").await;
    assert!(log.lines().count() > 500, "{log}");
    for line in log.lines() {
        let mut words = line.split_whitespace();
        let (time, level) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        assert!(time.starts_with("20") && time.ends_with('Z'), "{line:?}");
        assert!(["DEBUG", "INFO", "WARN", "ERROR"].contains(&level), "{line:?}");
        assert!(!line.starts_with(FORGED) && !line.contains(char::is_control), "{line:?}");
    }
}

#[tokio::test]
async fn no_string_breaks_the_json_of_the_log() {
    let log = log_of_all_strings("json").await;
    assert!(log.lines().count() > 500, "{log}");
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"));
        assert!(entry["timestamp"].is_string() && entry["fields"].is_object(), "{line:?}");
        assert!(["DEBUG", "INFO", "WARN"].contains(&entry["level"].as_str().unwrap()), "{line:?}");
        assert!(!line.contains(|c: char| c < ' '), "{line:?}");
    }
}
