//! Tags, and filters by tag.

use serde_json::{Value, json};

use crate::common::{Server, dummy, endless};

fn tagged(mut body: Value, tags: Value) -> Value {
    body["tags"] = tags;
    body
}

async fn found(server: &Server, query: &str) -> Vec<String> {
    let answer = server.get(&format!("/tasks?{query}")).await;
    assert_eq!(answer.status, 200, "{answer}");
    let tasks = answer.body.as_array().unwrap();
    tasks.iter().map(|task| task["task_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn tasks_are_found_by_their_tags() {
    let server = Server::start(&["--max-running", "1"]);
    let long = server.submit(tagged(endless(), json!({ "run": "a b", "plate": "7" }))).await;
    server.until_running(&long).await;
    let short = server.submit(tagged(dummy(0.0), json!({ "run": "a b" }))).await;
    server.submit(tagged(dummy(0.0), json!({ "run": "c" }))).await;
    server.submit(dummy(0.0)).await;
    assert_eq!(server.task(&long).await["tags"], json!({ "run": "a b", "plate": "7" }));
    for (query, expected) in [
        ("tag.run=a+b", vec![&short, &long]),
        ("tag.run=a%20b&tag.plate=7", vec![&long]),
        ("tag.run=a+b&status=pending", vec![&short]),
        ("tag.run=a+b&task_type=dummy_very_long,tokenize", vec![&long]),
        ("tag.run=a+b&created_after=2020-01-01T00:00:00Z", vec![&short, &long]),
        ("tag.run=b", vec![]),
        ("tag.missing=", vec![]),
    ] {
        assert_eq!(found(&server, query).await.iter().collect::<Vec<_>>(), expected, "{query}");
    }
}

#[tokio::test]
async fn tagged_tasks_are_paged() {
    let server = Server::start(&[]);
    let mut all = Vec::new();
    for number in 0..7 {
        all.insert(
            0,
            server.submit(tagged(dummy(0.0), json!({ "even": (number % 2).to_string() }))).await,
        );
    }
    let expected: Vec<_> = all.iter().step_by(2).cloned().collect();
    let mut seen = Vec::new();
    let mut next = Some("/tasks?tag.even=0&limit=3".to_owned());
    while let Some(page) = next {
        let answer = server.get(&page).await;
        let tasks = answer.body.as_array().unwrap();
        seen.extend(tasks.iter().map(|task| task["task_id"].as_str().unwrap().to_owned()));
        next = answer.next_page().map(str::to_owned);
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn tags_are_few_and_short_strings() {
    let server = Server::start(&[]);
    let many: Value =
        (0..17).map(|key| (key.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    for (tags, place) in [
        (many, "body.tags:"),
        (json!({ "": "x" }), "body.tags.:"),
        (json!({ "k": "v".repeat(257) }), "body.tags.k:"),
        (json!({ "k".repeat(65): "v" }), "body.tags.kkk"),
        (json!({ "k": 1 }), "string_type body.tags.k:"),
        (json!(["k"]), "dict_type body.tags:"),
    ] {
        let fault = server.post("/tasks", &tagged(dummy(0.0), tags)).await.only_fault();
        assert!(fault.contains(place), "{fault}");
    }
}

#[tokio::test]
async fn a_filter_of_very_many_tags_is_refused() {
    let server = Server::start(&[]);
    let query: Vec<_> = (0..1000).map(|key| format!("tag.k{key}=x")).collect();
    server.get(&format!("/tasks?{}", query.join("&"))).await.only_fault();
    let same = vec!["tag.k=x"; 1000].join("&");
    assert_eq!(server.get(&format!("/tasks?{same}")).await.body, json!([]));
    assert!(server.get(&format!("/tasks?{}", "a&".repeat(5000))).await.faults().len() <= 100);
}
