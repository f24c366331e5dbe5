//! Input a route does not use is refused, not ignored: a filter in the wrong place does harm.

use reqwest::Method;
use serde_json::json;

use crate::common::{Server, endless};

#[tokio::test]
async fn a_filter_in_the_body_cancels_nothing() {
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    let body = json!({ "task_type": "dummy_long" });
    for (method, path) in [
        (Method::POST, "/tasks/cancel?status=running,pending".to_owned()),
        (Method::POST, "/tasks/retry?status=failed".to_owned()),
        (Method::POST, format!("/tasks/{id}/retry")),
        (Method::DELETE, format!("/tasks/{id}")),
    ] {
        for text in [body.to_string(), "[]".to_owned(), "task_type=dummy_long".to_owned()] {
            let request = server.request(method.clone(), &path).body(text);
            let answer = server.send(request).await;
            assert_eq!(answer.status, 422, "{method} {path}: {answer}");
            assert_eq!(answer.body["detail"][0]["loc"], json!(["body"]), "{answer}");
        }
    }
    server.until_running(&id).await;
}

#[tokio::test]
async fn an_empty_body_and_an_empty_object_are_no_body() {
    let server = Server::start(&[]);
    for body in ["", " \n", "{}", " { } "] {
        let id = server.submit(endless()).await;
        let request = server.request(Method::POST, "/tasks/cancel?status=running,pending");
        let answer = server.send(request.body(body)).await;
        assert_eq!(
            (answer.status, &answer.body["matched"]),
            (200, &json!(1)),
            "{body:?}: {answer}"
        );
        server.wait_for(&id, "cancelled").await;
    }
}

#[tokio::test]
async fn an_unknown_query_parameter_is_refused_by_name_on_every_route() {
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    let task = format!("/tasks/{id}");
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/stats"),
        (Method::GET, "/task-types"),
        (Method::GET, "/tasks"),
        (Method::GET, "/events"),
        (Method::GET, "/tasks/current/info"),
        (Method::GET, "/health/live"),
        (Method::GET, "/health/ready"),
        (Method::GET, "/metrics"),
        (Method::GET, &task),
        (Method::GET, &format!("{task}/events")),
        (Method::GET, &format!("{task}/output")),
        (Method::POST, "/tasks/cancel"),
        (Method::POST, "/tasks/retry"),
        (Method::POST, &format!("{task}/retry")),
        (Method::DELETE, &task),
    ] {
        let request = server.request(method.clone(), &format!("{path}?colour=red&_=1764158400"));
        let answer = server.send(request).await;
        assert_eq!(answer.status, 422, "{method} {path}: {answer}");
        assert_eq!(answer.body["detail"][0]["loc"], json!(["query", "colour"]), "{path}: {answer}");
    }
    assert_eq!(server.get("/stats?tag.x=1").await.status, 422);
    server.until_running(&id).await;
}

#[tokio::test]
async fn a_parameter_against_caches_is_no_filter() {
    let server = Server::start(&[]);
    for path in ["/stats?_=1764158400", "/tasks?_=1764158400", "/task-types?_", "/?_=1"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer}");
    }
    // It does not count as a filter for a bulk cancellation either.
    let request = server.request(Method::POST, "/tasks/cancel?_=1764158400");
    assert_eq!(server.send(request).await.status, 422);
}

#[tokio::test]
async fn a_trailing_slash_changes_nothing() {
    let server = Server::start(&[]);
    let id = server.post("/tasks/?dry_run=false", &endless()).await.body["task_id"].clone();
    let id = id.as_str().unwrap();
    assert_eq!(server.get("/tasks/?status=running,pending").await.body[0]["task_id"], id);
    assert_eq!(server.get(&format!("/tasks/{id}/")).await.body["task_id"], id);
    assert_eq!(server.get("/stats/").await.status, 200);
    assert_eq!(server.get("/nothing/").await.status, 404);
    assert_eq!(server.delete(&format!("/tasks/{id}/")).await.status, 200);
}
