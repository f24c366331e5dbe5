//! `POST /tasks` with invalid bodies.

use reqwest::Method;
use serde_json::json;

use crate::common::{Server, dummy};

#[tokio::test]
async fn malformed_json_is_named_as_such() {
    let server = Server::start(&[]);
    let bodies = [
        "",
        "{",
        "{\"task_type\": \"dummy_short\"",
        "{'task_type': 'dummy_short'}",
        "{\"task_type\": \"dummy_short\",}",
        "{\"task_type\": \"dummy_short\"} and more",
        "{\"task_type\": \"dummy_short\", \"parameters\": {\"duration\": NaN}}",
        "task_type=dummy_short",
    ];
    for body in bodies {
        let answer = server.post_text("/tasks", body).await;
        assert!(answer.only_fault().starts_with("json_invalid body"), "{body}: {answer}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_are_malformed_json() {
    let server = Server::start(&[]);
    let request = server
        .request(Method::POST, "/tasks")
        .header("content-type", "application/json")
        .body(b"{\"task_type\": \"\xff\xfe\"}".to_vec());
    let answer = server.send(request).await;
    assert!(answer.only_fault().starts_with("json_invalid body"), "{answer}");
}

#[tokio::test]
async fn a_hundred_thousand_brackets_are_refused() {
    let server = Server::start(&[]);
    for open in ["[", "{\"a\":", "{\"task_type\":\"dummy_short\",\"parameters\":{\"a\":["] {
        let answer = server.post_text("/tasks", open.repeat(100_000 / open.len())).await;
        assert!(answer.only_fault().starts_with("json_invalid body"), "{answer}");
    }
    let brackets = "[".repeat(100_000) + &"]".repeat(100_000);
    let answer = server.post_text("/tasks", brackets).await;
    assert!(answer.only_fault().starts_with("json_invalid body"), "{answer}");
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_the_limit() {
    let server = Server::start(&[]);
    let body = json!({ "task_type": "x".repeat(2 * 1024 * 1024) }).to_string();
    let answer = server.post_text("/tasks", body).await;
    assert!(answer.error(413).contains("1"), "{answer}");
}

#[tokio::test]
async fn a_body_full_of_unknown_fields_does_not_hold_the_server_up() {
    let server = Server::start(&[]);
    let fields: Vec<_> = (0..60_000).map(|number| format!("\"k{number}\":1")).collect();
    let fields = fields.join(",");
    let parameters = format!("\"parameters\":{{{fields}}}");
    for fields in [&parameters, &fields] {
        let body = format!("{{\"task_type\":\"dummy_short\",{fields}}}");
        let answer = server.post_text("/tasks", body).await;
        assert!(!answer.faults().is_empty());
    }
}

#[tokio::test]
async fn another_content_type_is_refused_with_the_right_one() {
    let server = Server::start(&[]);
    let body = dummy(0.0).to_string();
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "nonsense"] {
        let request = server
            .request(Method::POST, "/tasks")
            .header("content-type", content_type)
            .body(body.clone());
        let answer = server.send(request).await;
        assert!(answer.error(415).contains("application/json"), "{content_type}: {answer}");
    }
    let answer = server.send(server.request(Method::POST, "/tasks").body(body.clone())).await;
    assert!(answer.error(415).contains("application/json"), "none: {answer}");
    assert_eq!(server.get("/tasks").await.body, json!([]), "nothing was stored");
}

#[tokio::test]
async fn a_content_type_may_carry_a_charset() {
    let server = Server::start(&[]);
    for content_type in ["application/json; charset=utf-8", "Application/JSON"] {
        let request = server
            .request(Method::POST, "/tasks")
            .header("content-type", content_type)
            .body(dummy(0.0).to_string());
        let answer = server.send(request).await;
        assert_eq!(answer.status, 200, "{content_type}: {answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    let server = Server::start(&[]);
    for body in
        ["[]", "null", "42", "true", "\"dummy_short\"", "[{\"task_type\": \"dummy_short\"}]"]
    {
        let fault = server.post_text("/tasks", body).await.only_fault();
        assert!(fault.starts_with("dict_type body: "), "{body}: {fault}");
        assert!(fault.contains("object"), "{body}: {fault}");
    }
}

#[tokio::test]
async fn a_field_that_stands_there_twice_is_refused() {
    let server = Server::start(&[]);
    let body = "{\"task_type\": \"dummy_short\", \"task_type\": \"dummy_long\"}";
    let fault = server.post_text("/tasks", body).await.only_fault();
    assert!(fault.contains("duplicate") && fault.contains("task_type"), "{fault}");
}

#[tokio::test]
async fn an_accepted_task_is_found_where_the_answer_says() {
    let server = Server::start(&[]);
    let answer = server.post("/tasks", &dummy(0.0)).await;
    assert_eq!(answer.status, 200, "{answer}");
    let id = answer.body["task_id"].as_str().unwrap();
    let expected =
        json!({ "task_id": id, "status": "pending", "message": "Task submitted successfully" });
    assert_eq!(answer.body, expected);
    assert_eq!(answer.header("location"), format!("/tasks/{id}"));
    assert_eq!(server.get(answer.header("location")).await.body["task_id"], *id);
}
