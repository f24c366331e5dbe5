//! Self-description of the server: types, OpenAPI, documentation, health.

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::Server;

#[tokio::test]
async fn the_task_types_come_with_all_that_a_client_needs() {
    let server = Server::start(&[]);
    let answer = server.get("/task-types").await;
    assert_eq!(answer.status, 200, "{answer}");
    for name in ["dummy_short", "dummy_long", "dummy_very_long", "tokenize", "image_process"] {
        assert!(answer.text.contains(&format!("\"{name}\"")), "{answer}");
    }
    let types = answer.body.as_array().expect("a list of types");
    let long = types.iter().find(|one| one.to_string().contains("\"dummy_long\"")).unwrap();
    assert!(!long["description"].as_str().unwrap().is_empty(), "{long:#}");
    assert_eq!(long["defaults"], json!({ "duration": 30, "steps": 10 }));
    let schema = &long["parameters"];
    assert!(schema["properties"]["steps"]["description"].is_string(), "{long:#}");
    assert_eq!(schema["properties"]["steps"]["default"], 10);
    assert_eq!(long["input_file_path"], "unused", "{long:#}");
    let tokenize = types.iter().find(|one| one.to_string().contains("\"tokenize\"")).unwrap();
    assert_eq!(tokenize["input_file_path"], "required", "{tokenize:#}");
    assert_eq!(tokenize["output_file_path"], "required", "{tokenize:#}");
}

#[tokio::test]
async fn the_roots_are_listed_with_a_hash_of_the_machine() {
    let server = Server::start(&[]);
    let answer = server.get("/roots").await;
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!(answer.body["roots"], json!([server.folder().canonicalize().unwrap()]));
    let machine = answer.body["machine"].as_str().unwrap_or_default();
    assert!(machine.is_empty() || machine.len() == 64, "{machine}");
    if let Ok(id) = std::fs::read_to_string("/etc/machine-id") {
        assert!(!machine.contains(id.trim()) || id.trim().is_empty(), "the id itself: {machine}");
    }
}

/// Operations of an OpenAPI document, as `get /tasks/{}`.
fn operations(document: &Value) -> Vec<String> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path: Vec<_> =
            path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
        for method in methods.as_object().unwrap().keys() {
            operations.push(format!("{method} {}", path.join("/")));
        }
    }
    operations
}

#[tokio::test]
async fn the_openapi_document_has_every_operation() {
    let server = Server::start(&[]);
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.status, 200, "{answer}");
    let version = answer.body["openapi"].as_str().unwrap();
    let minor = version.strip_prefix("3.").unwrap().split('.').next().unwrap();
    assert!(minor.parse::<u32>().unwrap() >= 1, "{version}");
    let operations = operations(&answer.body);
    for operation in [
        "get /",
        "post /tasks",
        "get /tasks",
        "get /tasks/current/info",
        "get /tasks/{}",
        "delete /tasks/{}",
        "get /task-types",
        "get /roots",
        "get /health/live",
        "get /health/ready",
    ] {
        assert!(operations.iter().any(|one| one == operation), "{operation}: {operations:#?}");
    }
    for answer in ["200", "409", "422", "429"] {
        let answers =
            &server.get("/openapi.json").await.body["paths"]["/tasks"]["post"]["responses"];
        assert!(answers.get(answer).is_some(), "{answer} in {answers:#}");
    }
}

/// Any operation may respond with these.
#[tokio::test]
async fn the_openapi_document_has_the_answers_that_no_handler_gives() {
    let server = Server::start(&[]);
    let document = server.get("/openapi.json").await.body;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            for status in ["400", "421", "500", "503"] {
                assert!(answers.contains_key(status), "{status} of {method} {path}");
            }
            assert_eq!(answers.contains_key("403"), method != "get", "403 of {method} {path}");
        }
    }
}

/// The specification requires it, and client generators reject a document without it.
#[tokio::test]
async fn every_answer_in_the_openapi_document_is_described() {
    let server = Server::start(&[]);
    let document = server.get("/openapi.json").await.body;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let described = answer["description"].as_str().is_some_and(|text| !text.is_empty());
                assert!(described, "{status} of {method} {path}: {answer:#}");
            }
        }
    }
}

#[tokio::test]
async fn the_openapi_document_leads_from_a_submission_to_its_task() {
    let server = Server::start(&[]);
    let document = server.get("/openapi.json").await.body;
    for path in ["/tasks", "/tasks/{task_id}/retry"] {
        let links = &document["paths"][path]["post"]["responses"]["200"]["links"];
        for operation in ["get", "cancel", "retry"] {
            let leads = |link: &Value| link["operationId"] == operation;
            assert!(links.as_object().unwrap().values().any(leads), "{operation}: {links:#}");
        }
    }
}

#[tokio::test]
async fn every_reference_of_the_openapi_document_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let server = Server::start(&[]);
    let document = server.get("/openapi.json").await.body;
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let target = document.pointer(reference.trim_start_matches('#'));
        assert!(target.is_some(), "{reference}");
    }
}

/// Values of `src` and `href` in a page.
fn links(html: &str) -> Vec<&str> {
    let after = |attribute: &'static str| {
        html.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap())
    };
    after("src=\"").chain(after("href=\"")).collect()
}

#[tokio::test]
async fn the_documentation_needs_no_other_host() {
    let server = Server::start(&[]);
    let response = server.request(Method::GET, "/docs").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let base = response.url().clone();
    let html = response.text().await.unwrap();
    assert!(html.contains("<html"), "{html}");
    let links = links(&html);
    assert!(!links.is_empty(), "{html}");
    for link in links {
        let target = base.join(link).unwrap();
        assert_eq!(target.host_str(), base.host_str(), "{link}");
        let path = format!("{}?{}", target.path(), target.query().unwrap_or_default());
        let answer = server.get(&path).await;
        assert_eq!(answer.status, 200, "{link}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("frame-ancestors 'none'"), "{link}: {policy}");
    }
}

#[tokio::test]
async fn health_probes_answer_without_a_fuss() {
    let server = Server::start(&[]);
    for path in ["/health/live", "/health/ready"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{answer}");
        assert!(answer.body.is_object(), "{answer}");
    }
}
