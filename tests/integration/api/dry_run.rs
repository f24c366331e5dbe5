//! `POST /tasks?dry_run=true`: validation without a submission.

use serde_json::{Value, json};

use crate::common::{Answer, Server, dummy, tokenize};

async fn try_out(server: &Server, body: &Value) -> Answer {
    server.post("/tasks?dry_run=true", body).await
}

#[tokio::test]
async fn a_dry_run_answers_the_merged_parameters_and_stores_nothing() {
    let server = Server::start(&[]);
    server.write("in.txt", "text");
    let answer = try_out(&server, &tokenize("in.txt", "new/folder/out.json")).await;
    assert_eq!(answer.status, 200, "{answer}");
    let expected =
        json!({ "encoding": "cl100k_base", "sleep_duration": 0, "special_tokens": "text" });
    assert_eq!(answer.body["parameters"], expected);
    assert_eq!(server.get("/tasks").await.body, json!([]));
    let mut names: Vec<_> = std::fs::read_dir(server.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("tasks.db"))
        .collect();
    names.sort();
    assert_eq!(names, ["in.txt"]);
}

#[tokio::test]
async fn a_dry_run_tells_what_the_task_would_meet() {
    let server = Server::start(&[]);
    std::fs::create_dir(server.folder().join("folder")).unwrap();
    std::fs::write(server.folder().join("file"), "").unwrap();
    for (input, output, place) in [
        ("absent.txt", "out.json", "body.input_file_path"),
        ("folder", "out.json", "body.input_file_path"),
        ("file", "file/out.json", "body.output_file_path"),
        ("file", "/elsewhere/out.json", "body.output_file_path"),
    ] {
        let fault = try_out(&server, &tokenize(input, output)).await.only_fault();
        assert!(fault.contains(place), "{fault}");
    }
    assert_eq!(try_out(&server, &tokenize("absent.txt", "file/out")).await.faults().len(), 2);
    let both = try_out(&server, &tokenize("absent.txt", "/elsewhere/out.json")).await.faults();
    assert!(both[0].contains("absent.txt") && both[1].contains("/elsewhere"), "{both:?}");
    assert_eq!(both.len(), 2, "{both:?}");
    try_out(&server, &json!({ "task_type": "nonsense" })).await.only_fault();
    let fault = server.post("/tasks?dry_run=maybe", &dummy(0.0)).await.only_fault();
    assert!(fault.contains("true or false"), "{fault}");
}
