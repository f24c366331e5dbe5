//! The submission form.

use serde_json::json;

use crate::common::dummy;
use crate::dashboard::{open, page_of, text_of};

#[tokio::test]
async fn a_task_is_submitted_through_the_form() {
    let Some((server, browser)) = open(&[], "/dashboard/submit").await else { return };
    browser.choose("#field-task-type", "dummy_short").await;
    browser.until_text("Total time, in seconds.").await;
    browser.until("document.querySelector('[name=\"parameters.steps\"]').value === '5'").await;
    browser.fill("[name='parameters.duration']", "0").await;
    browser.fill("[name='parameters.steps']", "3").await;
    browser.click("summary").await;
    browser.fill("[name=tags]", "plate=7\nwell=B3").await;
    browser.fill("[name=priority]", "4").await;
    browser.until_text("Ready to submit").await;
    browser.until_text(r#""parameters":{"duration":0,"steps":3}"#).await;
    browser.click(".submit-line button").await;
    browser.until("location.pathname.startsWith('/dashboard/tasks/')").await;
    browser.until(&format!("{} === 'completed'", text_of(".head .pill"))).await;
    let path = browser.path().await;
    let task = server.task(path.rsplit('/').next().unwrap()).await;
    assert_eq!(task["parameters"], json!({ "duration": 0, "steps": 3 }));
    assert_eq!(task["tags"], json!({ "plate": "7", "well": "B3" }));
    assert_eq!(task["priority"], 4);
}

#[tokio::test]
async fn what_is_wrong_is_said_beside_its_field() {
    let Some((server, browser)) = open(&[], "/dashboard/submit?type=tokenize").await else {
        return;
    };
    let fault = |field: &str| text_of(&format!("#field-{field}-fault"));
    browser.until_text("2 fields need attention").await;
    browser.fill("[name='parameters.sleep_duration']", "long").await;
    browser
        .until(&format!(
            "{}?.includes('Input should be a number')",
            fault("parameters-sleep_duration")
        ))
        .await;
    browser
        .until(
            "document.querySelector('[name=\"parameters.sleep_duration\"]').ariaInvalid === 'true'",
        )
        .await;
    browser.fill("[name='parameters.sleep_duration']", "0").await;
    browser.until(&format!("{} === ''", fault("parameters-sleep_duration"))).await;
    // An empty field shows no error before the user has visited it.
    browser.until(&format!("{} === ''", fault("output_file_path"))).await;
    browser.click(".submit-line button").await;
    browser.until(&format!("{}?.includes('required')", fault("output_file_path"))).await;
    browser.until("document.activeElement.name === 'input_file_path'").await;
    // The dry run finds errors the checks of the form do not.
    browser.fill("[name=output_file_path]", "out.json").await;
    browser.fill("[name=input_file_path]", "absent.txt").await;
    browser.until(&format!("{}?.includes('absent.txt')", fault("input_file_path"))).await;
    server.write("in.txt", "some text");
    browser.fill("[name=input_file_path]", "in.txt").await;
    browser.until_text("Ready to submit").await;
    assert_eq!(server.get("/tasks").await.body, json!([]));
}

#[tokio::test]
async fn a_format_is_chosen_and_keeps_the_spelling_of_a_copy() {
    let Some((server, browser)) = open(&[], "/dashboard/submit?type=image_process").await else {
        return;
    };
    let format = "document.querySelector('select[name=\"parameters.format\"]')";
    let options = format!("[...({format}?.options ?? [])].map((option) => option.text)");
    browser.until(&format!("{options}.includes('PNG')")).await;
    browser.choose("[name='parameters.format']", "PNG").await;
    browser.until_text(r#""parameters":{"format":"PNG"}"#).await;

    let body = json!({ "task_type": "image_process", "input_file_path": "absent.png",
        "output_file_path": "out.png", "parameters": { "format": "png" } });
    let id = server.submit(body).await;
    server.wait_for(&id, "failed").await;
    browser.open(&format!("/dashboard/submit?from={id}")).await;
    browser.until_text(r#""parameters":{"format":"png"}"#).await;
    browser.until_text("1 field needs attention").await;
    browser.until(&format!("{options}[0] !== '' && {format}.value === '\"png\"'")).await;
}

#[tokio::test]
async fn a_copy_of_a_task_is_edited() {
    let Some((server, browser)) = open(&[], "/dashboard").await else { return };
    let mut body = dummy(0.0);
    body["tags"] = json!({ "plate": "7" });
    body["parameters"]["steps"] = 9.into();
    let id = server.submit(body).await;
    browser.open(&page_of(&id)).await;
    browser.press("Edit a copy").await;
    browser.until("document.querySelector('[name=\"parameters.steps\"]')?.value === '9'").await;
    browser.until("document.querySelector('[name=tags]').value === 'plate=7'").await;
    browser.fill("[name='parameters.steps']", "8").await;
    browser.click(".submit-line button").await;
    browser.until("location.pathname.startsWith('/dashboard/tasks/')").await;
    browser.until_text("completed").await;
    let path = browser.path().await;
    let copy = server.task(path.rsplit('/').next().unwrap()).await;
    assert_eq!(copy["parameters"], json!({ "duration": 0, "steps": 8 }));
    assert_ne!(copy["task_id"], id);
}
