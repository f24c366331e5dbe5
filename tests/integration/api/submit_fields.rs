//! `POST /tasks` with invalid fields.

use serde_json::{Value, json};

use crate::common::{Server, endless};

const TYPES: [&str; 5] =
    ["dummy_short", "dummy_long", "dummy_very_long", "tokenize", "image_process"];

/// The only error of a dummy task with these parameters.
async fn parameter_fault(server: &Server, parameters: Value) -> String {
    let body = json!({ "task_type": "dummy_short", "parameters": parameters });
    server.post("/tasks", &body).await.only_fault()
}

/// The only error of a dummy task with this field next to its type.
async fn field_fault(server: &Server, field: &str, value: Value) -> String {
    server.post("/tasks", &json!({ "task_type": "dummy_short", field: value })).await.only_fault()
}

#[tokio::test]
async fn an_unknown_type_is_answered_with_the_known_ones() {
    let server = Server::start(&[]);
    let fault = server.post("/tasks", &json!({ "task_type": "blur" })).await.only_fault();
    assert!(fault.starts_with("enum body.task_type: "), "{fault}");
    for name in TYPES {
        assert!(fault.contains(name), "{fault}");
    }
    let fault = server.post("/tasks", &json!({ "task_type": "dummy_shrt" })).await.only_fault();
    assert!(fault.contains("did you mean `dummy_short`?"), "{fault}");
}

#[tokio::test]
async fn a_type_is_required_and_is_a_string() {
    let server = Server::start(&[]);
    let fault = server.post("/tasks", &json!({})).await.only_fault();
    assert!(fault.starts_with("missing body.task_type: "), "{fault}");
    for value in [json!(7), json!(["dummy_short"]), json!(null)] {
        let fault = server.post("/tasks", &json!({ "task_type": value })).await.only_fault();
        assert!(fault.starts_with("string_type body.task_type: "), "{fault}");
    }
}

#[tokio::test]
async fn a_parameter_of_the_wrong_type_is_told_what_was_expected() {
    let server = Server::start(&[]);
    for value in [json!("long"), json!([5]), json!({}), json!(true), json!(null)] {
        let fault = parameter_fault(&server, json!({ "duration": value })).await;
        assert!(fault.starts_with("float_type body.parameters.duration: "), "{fault}");
        assert!(fault.contains("a number"), "{fault}");
    }
    for value in [json!("5"), json!(2.5)] {
        let fault = parameter_fault(&server, json!({ "steps": value })).await;
        assert!(fault.starts_with("int_type body.parameters.steps: "), "{fault}");
        assert!(fault.contains("a whole number"), "{fault}");
    }
}

#[tokio::test]
async fn a_parameter_out_of_its_range_is_told_the_range() {
    let server = Server::start(&[]);
    for (name, value, limit) in [
        ("duration", json!(-1), "0"),
        ("duration", json!(-0.001), "0"),
        ("duration", json!(1e300), ""),
        ("duration", json!(u64::MAX), ""),
        ("steps", json!(0), "1"),
        ("steps", json!(-3), "1"),
        ("steps", json!(1_000_001), "1000000"),
        ("steps", json!(u32::MAX), "1000000"),
        ("steps", json!(5_000_000_000_u64), "1000000"),
        ("steps", json!(u64::MAX), "1000000"),
    ] {
        let fault = parameter_fault(&server, json!({ name: value })).await;
        assert!(fault.contains(&format!(" body.parameters.{name}: ")), "{value}: {fault}");
        assert!(fault.contains(limit), "{value}: {fault}");
    }
}

#[tokio::test]
async fn a_number_beyond_all_numbers_is_refused() {
    let server = Server::start(&[]);
    for number in ["1e999", "-1e999", &"9".repeat(400)] {
        let body = format!(
            "{{\"task_type\": \"dummy_short\", \"parameters\": {{\"duration\": {number}}}}}"
        );
        let answer = server.post_text("/tasks", body).await;
        assert!(!answer.faults().is_empty(), "{number}: {answer}");
    }
}

#[tokio::test]
async fn an_unknown_field_is_answered_with_the_nearest_name() {
    let server = Server::start(&[]);
    for (field, nearest) in [
        ("paramters", "parameters"),
        ("input_file", "input_file_path"),
        ("output_path", "output_file_path"),
        ("priorty", "priority"),
        ("timeout_second", "timeout_seconds"),
        ("max_attempt", "max_attempts"),
    ] {
        let fault = field_fault(&server, field, json!(1)).await;
        assert!(fault.starts_with(&format!("extra_forbidden body.{field}: ")), "{fault}");
        assert!(fault.contains(&format!("did you mean `{nearest}`?")), "{fault}");
    }
    let fault = parameter_fault(&server, json!({ "duraton": 1 })).await;
    assert!(fault.starts_with("extra_forbidden body.parameters.duraton: "), "{fault}");
    assert!(fault.contains("did you mean `duration`?"), "{fault}");
    let fault = parameter_fault(&server, json!({ "colour": 1 })).await;
    assert!(fault.contains("`duration`") && fault.contains("`steps`"), "{fault}");
}

#[tokio::test]
async fn all_faults_are_named_at_once() {
    let server = Server::start(&[]);
    let body = json!({
        "task_type": "dummy_short",
        "parameters": { "duration": "long", "steps": 0, "stps": 3 },
        "prioritty": 1,
        "max_attempts": 0,
        "input_file_path": 5,
    });
    let faults = server.post("/tasks", &body).await.faults();
    for place in [
        "float_type body.parameters.duration: ",
        " body.parameters.steps: ",
        "extra_forbidden body.parameters.stps: ",
        "extra_forbidden body.prioritty: ",
        " body.max_attempts: ",
        "string_type body.input_file_path: ",
    ] {
        let named = faults.iter().filter(|fault| fault.contains(place)).count();
        assert_eq!(named, 1, "{place} in {faults:#?}");
    }
    assert_eq!(faults.len(), 6, "{faults:#?}");
}

#[tokio::test]
async fn an_unknown_type_does_not_hide_the_other_faults() {
    let server = Server::start(&[]);
    let body = json!({ "task_type": "blur", "priority": "high", "tag": {} });
    let faults = server.post("/tasks", &body).await.faults();
    for place in ["body.task_type: ", "body.priority: ", "body.tag: "] {
        assert!(faults.iter().any(|fault| fault.contains(place)), "{place} in {faults:#?}");
    }
}

#[tokio::test]
async fn parameters_are_an_object() {
    let server = Server::start(&[]);
    for value in [json!([]), json!("steps=5"), json!(5), json!(null)] {
        let fault = field_fault(&server, "parameters", value).await;
        assert!(fault.starts_with("dict_type body.parameters: "), "{fault}");
    }
}

#[tokio::test]
async fn a_null_means_that_an_optional_field_is_absent() {
    let server = Server::start(&[]);
    let id = server
        .submit(json!({
            "task_type": "dummy_short",
            "input_file_path": null,
            "output_file_path": null,
            "timeout_seconds": null,
        }))
        .await;
    let task = server.task(&id).await;
    assert_eq!(task["parameters"], json!({ "duration": 5, "steps": 5 }));
    assert_eq!(task["input_file_path"], Value::Null);
}

#[tokio::test]
async fn the_parameters_given_go_on_top_of_the_defaults() {
    let server = Server::start(&[]);
    let body = json!({ "task_type": "dummy_very_long", "parameters": { "duration": 7 } });
    let id = server.submit(body).await;
    assert_eq!(server.task(&id).await["parameters"], json!({ "duration": 7, "steps": 20 }));
}

#[tokio::test]
async fn the_options_of_a_submission_are_checked() {
    let server = Server::start(&[]);
    for (field, value) in [
        ("priority", json!(2_147_483_648_u64)),
        ("priority", json!(-2_147_483_649_i64)),
        ("priority", json!(0.5)),
        ("priority", json!("high")),
        ("timeout_seconds", json!(0)),
        ("timeout_seconds", json!(-1)),
        ("timeout_seconds", json!(1e300)),
        ("timeout_seconds", json!("10s")),
        ("max_attempts", json!(0)),
        ("max_attempts", json!(-1)),
        ("max_attempts", json!(1.5)),
        ("max_attempts", json!(u64::MAX)),
    ] {
        let fault = field_fault(&server, field, value.clone()).await;
        assert!(fault.contains(&format!(" body.{field}")), "{value}: {fault}");
    }
}

#[tokio::test]
async fn the_options_of_a_submission_are_shown() {
    let server = Server::start(&[]);
    let mut body = endless();
    for (field, value) in
        [("priority", json!(-7)), ("timeout_seconds", json!(1000.5)), ("max_attempts", json!(3))]
    {
        body[field] = value;
    }
    let id = server.submit(body.clone()).await;
    let task = server.task(&id).await;
    for field in ["priority", "timeout_seconds", "max_attempts"] {
        assert_eq!(task[field], body[field], "{task:#}");
    }
    let id = server.submit(endless()).await;
    let task = server.task(&id).await;
    assert_eq!((&task["priority"], &task["max_attempts"]), (&json!(0), &json!(1)), "{task:#}");
}

#[tokio::test]
async fn tasks_check_their_own_parameters() {
    let server = Server::start(&[]);
    for (task_type, name, value, said) in [
        ("tokenize", "encoding", json!("utf-8"), "cl100k_base"),
        ("tokenize", "sleep_duration", json!(-1), "0"),
        ("tokenize", "special_tokens", json!("maybe"), "reject"),
        ("image_process", "width", json!(0), "1"),
        ("image_process", "height", json!(-5), "1"),
        ("image_process", "quality", json!(101), "100"),
        ("image_process", "quality", json!(0), "1"),
        ("image_process", "format", json!("XCF"), "PNG"),
    ] {
        let body = json!({
            "task_type": task_type,
            "input_file_path": "input",
            "output_file_path": "output",
            "parameters": { name: value },
        });
        let fault = server.post("/tasks", &body).await.only_fault();
        assert!(fault.contains(&format!(" body.parameters.{name}: ")), "{fault}");
        assert!(fault.contains(said), "{fault}");
    }
}
