//! The dashboard of a server with API keys.

use tempfile::TempDir;

use crate::common::{Server, endless, run};
use crate::dashboard::browser::Browser;
use crate::dashboard::page_of;

const KEY: &str = "7f3a9c1e5b8d2046f1a7c3e9d5b08264a6c8e0f2143658790badcfe1325476981";

/// Starts a server with two keys: `KEY`, and a read-only one, which is returned.
fn guarded() -> (Server, String) {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("keys"), format!("{KEY}\n")).unwrap();
    let args = ["key", "new", "--name", "reader", "--read-only", "--file", "keys"];
    let made = run(folder.path(), &args, &[]);
    let reader = String::from_utf8(made.stdout).unwrap().trim_end().to_owned();
    (Server::start_in(folder, &["--api-key-file", "keys"], &[]), reader)
}

async fn submit(server: &Server) -> String {
    let request = server.request(reqwest::Method::POST, "/tasks").bearer_auth(KEY);
    let answer = server.send(request.json(&endless())).await;
    answer.body["task_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_is_asked_for_and_kept_for_the_tab() {
    let (server, _) = guarded();
    let Some(browser) = Browser::start(server.address()).await else { return };
    let id = submit(&server).await;
    browser.open("/dashboard").await;
    browser.until_text("This server asks for an API key").await;
    browser.fill("#key-value", "a-key-that-is-not-known").await;
    browser.press("Continue").await;
    browser.until_text("unknown API key").await;
    browser.fill("#key-value", KEY).await;
    browser.press("Continue").await;
    // The list and the stream.
    browser.until(&format!("document.querySelector('tr[data-id=\"{id}\"]')")).await;
    let other = submit(&server).await;
    browser.until(&format!("document.querySelector('tr[data-id=\"{other}\"]')")).await;
    browser.open(&page_of(&id)).await;
    browser.until_text("running").await;
    browser.until("!document.getElementById('key').open").await;
    browser.press("Forget key").await;
    browser.until_text("This server asks for an API key").await;
}

#[tokio::test]
async fn a_key_that_only_reads_is_told_so() {
    let (server, reader) = guarded();
    let Some(browser) = Browser::start(server.address()).await else { return };
    let id = submit(&server).await;
    browser.open(&page_of(&id)).await;
    browser.fill("#key-value", &reader).await;
    browser.press("Continue").await;
    browser.until_text("read-only key").await;
    let disabled = "button.disabled && button.title.includes('`reader` is read-only')";
    browser
        .until(&format!(
            "[...document.querySelectorAll('.head button.danger')].some((button) => {disabled})"
        ))
        .await;
    browser.open("/dashboard").await;
    browser.click(&format!("tr[data-id=\"{id}\"] input")).await;
    browser
        .until(&format!(
            "[...document.querySelectorAll('.selection .actions button')].every((button) => {disabled})"
        ))
        .await;
    browser.open("/dashboard/submit").await;
    browser.until_text("`reader` is read-only").await;
    browser.until("document.querySelector('.submit-line button').disabled").await;
    // The other key may write.
    browser.press("Forget key").await;
    browser.fill("#key-value", KEY).await;
    browser.press("Continue").await;
    browser.until("!document.querySelector('.submit-line button').disabled").await;
    browser.until("document.getElementById('read-only').hidden").await;
}
