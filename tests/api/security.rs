//! API keys, and who may listen without one.

use reqwest::Method;
use tempfile::TempDir;

use crate::common::{Answer, Server, dummy, refusal, tokenize};

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
fn a_server_does_not_listen_to_the_world_without_a_key() {
    let folder = TempDir::new().unwrap();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let (code, said) = refusal(folder.path(), &["--listen", address], &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("--allow-unauthenticated"), "{said}");
        assert!(said.contains("--api-key-file"), "{said}");
    }
}

#[test]
fn a_key_file_without_a_key_is_refused() {
    let folder = TempDir::new().unwrap();
    let (code, said) = refusal(folder.path(), &["--api-key-file", "absent"], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("absent"), "{said}");
    std::fs::write(folder.path().join("empty"), "\n  \n").unwrap();
    let (code, said) = refusal(folder.path(), &["--api-key-file", "empty"], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("empty"), "{said}");
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let server = Server::start(&[]);
    let running = server.submit(crate::common::endless()).await;
    let from = |origin: &'static str| {
        server
            .request(Method::POST, "/tasks/cancel?status=pending,running")
            .header("origin", origin)
    };
    for origin in ["https://evil.example", "null", "http://localhost:3001"] {
        let answer = server.send(from(origin)).await;
        assert!(answer.error(403).contains("--cors-origin"), "{answer}");
    }
    assert_ne!(server.task(&running).await["status"], "cancelled");
    let own = format!("http://{}", server.address());
    let request =
        server.request(Method::DELETE, &format!("/tasks/{running}")).header("origin", own);
    assert_eq!(server.send(request).await.status, 200);
    assert_eq!(server.send(from("http://localhost:3000")).await.status, 200);
}

#[tokio::test]
async fn a_path_longer_than_any_is_refused_even_if_it_is_not_used() {
    let server = Server::start(&[]);
    let mut body = crate::common::dummy(0.0);
    body["input_file_path"] = "x".repeat(5000).into();
    let fault = server.post("/tasks", &body).await.only_fault();
    assert!(fault.contains("4096"), "{fault}");
}
