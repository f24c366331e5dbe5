//! Swagger UI under its content security policy.

use crate::dashboard::open;

#[tokio::test]
async fn the_documentation_works_under_its_policy() {
    let Some((_server, browser)) = open(&[], "/docs/").await else { return };
    browser.until("document.querySelectorAll('.opblock').length > 10").await;
    browser.click("#operations-tasks-list .opblock-summary-control").await;
    browser.until_text("Try it out").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
