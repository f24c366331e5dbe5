//! The dashboard while its server is down.

use crate::common::endless;
use crate::dashboard::{open, page_of};

#[tokio::test]
async fn a_server_that_is_gone_is_told_of_until_it_is_back() {
    let Some((mut server, browser)) = open(&[], "/dashboard").await else { return };
    let id = server.submit(endless()).await;
    let begun = server.until_running(&id).await;
    let row = format!("document.querySelector('tr[data-id=\"{id}\"]')");
    browser.until(&format!("{row}?.innerText.includes('running')")).await;
    server.kill();
    browser.until_text("The server does not answer").await;
    server.come_back();
    browser.until_no_text("The server does not answer").await;
    server.until_running_again(&begun).await;
    // The table recovers without a reload.
    server.delete(&format!("/tasks/{id}")).await;
    browser.until(&format!("{row}.innerText.includes('cancelled')")).await;

    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    browser.open(&page_of(&id)).await;
    browser.until_text("running").await;
    server.kill();
    browser.until_text("The server does not answer").await;
    server.come_back();
    browser.until_no_text("The server does not answer").await;
    server.delete(&format!("/tasks/{id}")).await;
    browser.until_text("Task cancelled by user").await;
}
