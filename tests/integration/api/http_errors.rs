//! Responses to requests the server cannot serve, and to pages of other origins.

use reqwest::Method;

use crate::common::{Answer, Server, dummy};

const ORIGIN: &str = "http://localhost:3000";

async fn send_from(server: &Server, origin: &str, method: Method, path: &str) -> Answer {
    server.send(server.request(method, path).header("origin", origin)).await
}

/// True if a comma-separated header contains this name.
fn lists(answer: &Answer, header: &str, name: &str) -> bool {
    answer.header(header).split(',').any(|one| one.trim().eq_ignore_ascii_case(name))
}

#[tokio::test]
async fn an_unknown_route_is_not_found_in_json() {
    let server = Server::start(&[]);
    for path in ["/nowhere", "/tasks/current/nowhere", "/task", "/tasks//", "/%FF"] {
        let answer = server.get(path).await;
        assert!(!answer.error(404).is_empty(), "{path}: {answer}");
    }
}

#[tokio::test]
async fn an_unknown_method_is_told_the_known_ones_in_json() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.0)).await;
    for (path, method, allowed) in [
        ("/tasks".to_owned(), Method::PUT, "POST"),
        ("/tasks".to_owned(), Method::DELETE, "GET"),
        (format!("/tasks/{id}"), Method::POST, "DELETE"),
        (format!("/tasks/{id}"), Method::PATCH, "GET"),
        ("/".to_owned(), Method::POST, "GET"),
        ("/task-types".to_owned(), Method::DELETE, "GET"),
    ] {
        let answer = server.send(server.request(method, &path)).await;
        assert!(!answer.error(405).is_empty(), "{path}: {answer}");
        assert!(lists(&answer, "allow", allowed), "{path}: {answer}");
    }
}

#[tokio::test]
async fn another_host_is_told_the_flag_that_would_allow_it() {
    let server = Server::start(&[]);
    let port = server.address().rsplit(':').next().unwrap().to_owned();
    for host in [
        "tasks.example".to_owned(),
        format!("tasks.example:{port}"),
        "127.0.0.1.example".to_owned(),
    ] {
        let answer = server.send(server.request(Method::GET, "/tasks").header("host", &host)).await;
        let detail = answer.error(421);
        assert!(detail.contains("--allowed-host"), "{detail}");
        assert!(detail.contains(host.split(':').next().unwrap()), "{detail}");
    }
    for host in [
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
        "LOCALHOST".to_owned(),
    ] {
        let answer = server.send(server.request(Method::GET, "/tasks").header("host", &host)).await;
        assert_eq!(answer.status, 200, "{host}: {answer}");
    }
}

#[tokio::test]
async fn a_further_host_can_be_allowed() {
    let server = Server::start(&["--allowed-host", "tasks.example"]);
    let request = server.request(Method::GET, "/tasks").header("host", "tasks.example");
    assert_eq!(server.send(request).await.status, 200);
    let request = server.request(Method::GET, "/tasks").header("host", "evil.example");
    assert_eq!(server.send(request).await.status, 421);
}

#[tokio::test]
async fn a_preflight_allows_every_documented_method_and_header() {
    let server = Server::start(&[]);
    let headers = [
        "content-type",
        "authorization",
        "prefer",
        "if-none-match",
        "idempotency-key",
        "last-event-id",
    ];
    for origin in [ORIGIN, "http://127.0.0.1:3000"] {
        for method in ["GET", "POST", "DELETE"] {
            let request = server
                .request(Method::OPTIONS, "/tasks")
                .header("origin", origin)
                .header("access-control-request-method", method)
                .header("access-control-request-headers", headers.join(","));
            let answer = server.send(request).await;
            assert!([200, 204].contains(&answer.status), "{answer}");
            assert_eq!(answer.header("access-control-allow-origin"), origin, "{answer}");
            assert_eq!(answer.header("access-control-allow-credentials"), "true", "{answer}");
            assert!(lists(&answer, "access-control-allow-methods", method), "{answer}");
            for header in headers {
                assert!(lists(&answer, "access-control-allow-headers", header), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn answers_let_pages_of_the_allowed_origin_read_what_they_need() {
    let server = Server::start(&[]);
    let answer = send_from(&server, ORIGIN, Method::GET, "/tasks").await;
    assert_eq!(answer.header("access-control-allow-origin"), ORIGIN, "{answer}");
    assert_eq!(answer.header("access-control-allow-credentials"), "true", "{answer}");
    for header in ["link", "location", "etag", "retry-after"] {
        assert!(lists(&answer, "access-control-expose-headers", header), "{answer}");
    }
}

#[tokio::test]
async fn errors_are_readable_for_pages_of_the_allowed_origin() {
    let server = Server::start(&[]);
    for (method, path, status) in [
        (Method::GET, "/nowhere", 404),
        (Method::GET, "/tasks/nonsense", 0),
        (Method::PUT, "/tasks", 405),
        (Method::POST, "/tasks", 415),
        (Method::GET, "/tasks?limit=0", 422),
    ] {
        let answer = send_from(&server, ORIGIN, method, path).await;
        assert!(status == 0 || answer.status == status, "{path}: {answer}");
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN, "{path}: {answer}");
    }
}

#[tokio::test]
async fn another_origin_gets_no_permission() {
    let server = Server::start(&[]);
    for origin in ["http://evil.example", "http://localhost:3001", "https://localhost:3000", "null"]
    {
        let answer = send_from(&server, origin, Method::GET, "/tasks").await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}: {answer}");
    }
}

#[tokio::test]
async fn origins_can_be_chosen() {
    let server = Server::start(&["--cors-origin", "https://lab.example"]);
    let answer = send_from(&server, "https://lab.example", Method::GET, "/tasks").await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://lab.example", "{answer}");
    let answer = send_from(&server, ORIGIN, Method::GET, "/tasks").await;
    assert_eq!(answer.header("access-control-allow-origin"), "", "{answer}");
}
