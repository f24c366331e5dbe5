//! The page of one task.

use serde_json::json;

use crate::common::{dummy, endless, tokenize};
use crate::dashboard::{busy, open, page_of, text_of};

const MARKUP: &str = "<img src=x onerror=\"document.title='run'\"><b>bold</b>";

#[tokio::test]
async fn a_task_is_watched_cancelled_and_retried() {
    let Some((server, browser)) = open(&[], "/dashboard").await else { return };
    let id = server.submit(busy()).await;
    browser.open(&page_of(&id)).await;
    // It moves without a reload.
    browser.until_text("Processing step").await;
    let message = text_of(".now .message");
    let first = browser.run(&format!("return {message}"), json!([])).await;
    browser.until(&format!("{message} !== {first}")).await;
    browser.until_text("elapsed").await;
    browser.until_text("left").await;

    browser.press("Cancel").await;
    browser.until_text("Cancel this task?").await;
    browser.press("Back").await;
    assert_eq!(server.task(&id).await["cancel_requested_at"], json!(null));
    browser.press("Cancel").await;
    browser.press("Cancel the task").await;
    browser.until(&format!("{} === 'cancelled'", text_of(".head .pill"))).await;
    browser.until_text("Cancellation requested").await;
    assert_eq!(server.task(&id).await["status"], "cancelled");

    browser.press("Retry").await;
    browser.until(&format!("location.pathname !== '{}'", page_of(&id))).await;
    browser.until(&format!("{} === 'running'", text_of(".head .pill"))).await;
    let path = browser.path().await;
    let again = server.task(path.rsplit('/').next().unwrap()).await;
    assert_eq!(again["retry_of"], id);
    browser.until_text(&id).await;
}

#[tokio::test]
async fn an_address_of_a_task_leads_to_all_that_is_known_of_it() {
    let Some((server, browser)) = open(&["--max-running", "1"], "/dashboard").await else {
        return;
    };
    let mut body = tokenize("absent.txt", "out/tokens.json");
    body["tags"] = json!({ "plate": "7" });
    body["max_attempts"] = 2.into();
    let failed = server.submit(body).await;
    let task = server.wait_for(&failed, "failed").await;
    browser.open(&page_of(&failed)).await;
    browser.until_text("Attempt 2 of 2 began").await;
    for text in ["Attempt 1 failed", "plate=7", "out/tokens.json", "special_tokens", "2 of 2"] {
        browser.until_text(text).await;
    }
    let error = task["error"].as_str().unwrap();
    browser.until_text(error).await;
    // Shown once, for the last attempt; the first attempt's is no longer known.
    browser.until(&format!("document.body.innerText.split({}).length === 2", json!(error))).await;

    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let pending = server.submit(dummy(0.0)).await;
    browser.open(&page_of(&pending)).await;
    browser.until_text("Waiting for a free slot (1 of 1 busy); number 1 in the queue").await;

    browser.open("/dashboard/tasks/01a1a1a1-0000-7000-8000-000000000000").await;
    browser.until_text("No such task").await;
    browser.open("/dashboard/tasks/nonsense").await;
    browser.until_text("expected a UUID").await;
}

#[tokio::test]
async fn a_retry_whose_answer_is_lost_is_not_submitted_twice() {
    let Some((server, browser)) = open(&[], "/dashboard").await else { return };
    let id = server.submit(tokenize("absent.txt", "out.json")).await;
    server.wait_for(&id, "failed").await;
    browser.open(&page_of(&id)).await;
    browser.until_text("Retry").await;
    // The first response does not arrive.
    browser
        .run(
            "const fetched = window.fetch; window.keys = [];
             window.fetch = async (path, options) => {
               const answer = await fetched(path, options);
               if (!path.endsWith('/retry')) return answer;
               window.keys.push(options.headers.get('Idempotency-Key'));
               window.wasDisabled = document.querySelector('.head button.primary').disabled;
               if (window.keys.length === 1) throw new TypeError('lost');
               return answer;
             };",
            json!([]),
        )
        .await;
    browser.press("Retry").await;
    browser.until_text("did not reach the server").await;
    browser.until("window.wasDisabled").await;
    browser.press("Retry").await;
    browser.until(&format!("location.pathname !== '{}'", page_of(&id))).await;
    browser.until("window.keys[0] && window.keys[0] === window.keys[1]").await;
    assert_eq!(server.get("/tasks").await.body.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_task_is_copied_as_a_command() {
    let Some((server, browser)) = open(&[], "/dashboard").await else { return };
    let mut body = endless();
    body["tags"] = json!({ "note": "it's" });
    let id = server.submit(body).await;
    browser.open(&page_of(&id)).await;
    browser.until_text("Copy as curl").await;
    // A headless browser does not permit reading the clipboard.
    browser
        .run("navigator.clipboard.writeText = async (text) => { window.copied = text; }", json!([]))
        .await;
    browser.press("Copy as curl").await;
    browser.until("window.copied").await;
    let command = browser.run("return window.copied", json!([])).await;
    let done = std::process::Command::new("sh").args(["-c", command.as_str().unwrap()]).output();
    let answer: serde_json::Value = serde_json::from_slice(&done.unwrap().stdout).unwrap();
    let again = server.task(answer["task_id"].as_str().unwrap()).await;
    assert_eq!(again["tags"]["note"], "it's");
    assert_eq!(again["parameters"]["steps"], 1000);
}

#[tokio::test]
async fn markup_of_a_task_is_text() {
    let Some((server, browser)) = open(&[], "/dashboard").await else { return };
    let mut body = tokenize(&format!("in{MARKUP}.txt"), &format!("out{MARKUP}.json"));
    body["tags"] = json!({ MARKUP: MARKUP });
    let id = server.submit(body).await;
    server.wait_for(&id, "failed").await;
    let shown = "document.title !== 'run' && !document.querySelector('main b, main img')";
    for path in ["/dashboard".to_owned(), page_of(&id)] {
        browser.open(&path).await;
        browser.until_text("failed").await;
        browser.until_text(&format!("in{MARKUP}.txt")).await;
        browser.until_text(&format!("{MARKUP}={MARKUP}")).await;
        browser.until(shown).await;
    }
    browser.press("Edit a copy").await;
    browser
        .until(&format!("document.querySelector('[name=tags]')?.value.includes({})", json!(MARKUP)))
        .await;
    browser.until(shown).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
