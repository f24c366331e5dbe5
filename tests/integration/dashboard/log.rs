//! The log on the page of a task.

use serde_json::json;

use crate::api::log::{submit, talking, until_said};
use crate::dashboard::browser::Browser;
use crate::dashboard::{page_of, text_of};

#[tokio::test]
async fn a_log_grows_on_the_page_while_its_task_runs() {
    let server = talking(&[]);
    let Some(browser) = Browser::start(server.address()).await else { return };
    let id = submit(&server, "<b>first</b> \u{1b}[31mred\u{1b}[0m", json!("go")).await;
    until_said(&server, &id, "log INFO on a thread n=7").await;
    browser.open(&page_of(&id)).await;
    let log = text_of("pre.log");
    browser.until(&format!("{log}?.includes('out <b>first</b> red')")).await;
    server.write("go", "");
    // Once the task has ended, the page shows the log of its last attempt.
    browser.until(&format!("{log}.includes('err end of attempt 2')")).await;
    let link =
        format!("document.querySelector('.part.log a').getAttribute('href') === '/tasks/{id}/log'");
    browser.until(&link).await;

    let quiet = server.submit(json!({
        "task_type": "image_process", "input_file_path": "absent", "output_file_path": "out.png",
    }));
    browser.open(&page_of(&quiet.await)).await;
    browser.until_text("No log.").await;
    browser.until("document.querySelector('pre.log').hidden").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
