//! Every view: on a phone, light and dark, with a screen reader, and with a keyboard.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Server, endless, tokenize};
use crate::dashboard::browser::Browser;
use crate::dashboard::{open, page_of};

/// Path of each view, and a text it shows once it is loaded.
pub(crate) async fn views(server: &Server) -> Vec<(String, &'static str)> {
    server.write("in.txt", "some text");
    let mut body = tokenize("in.txt", "out.json");
    body["tags"] = json!({ "plate": "7", "a_rather_long_name_of_a_tag": "x".repeat(200) });
    let completed = server.submit(body).await;
    server.wait_for(&completed, "completed").await;
    let failed =
        server.submit(tokenize(&format!("{}.txt", "absent".repeat(30)), "out2.json")).await;
    server.wait_for(&failed, "failed").await;
    let cancelled = server.submit(endless()).await;
    server.delete(&format!("/tasks/{cancelled}")).await;
    server.wait_for(&cancelled, "cancelled").await;
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let mut body = endless();
    body["tags"] = (0..10).map(|n| (format!("tag{n}"), json!("a value"))).collect();
    server.submit(body).await;
    vec![
        ("/dashboard".to_owned(), "dummy_very_long"),
        ("/dashboard?status=pending,running&tag.a=b".to_owned(), "No task matches"),
        (page_of(&completed), "token_count"),
        (page_of(&failed), "cannot open"),
        (page_of(&running), "running"),
        (page_of("nonsense"), "No such task"),
        ("/dashboard/nosuch".to_owned(), "There is no such page"),
        ("/dashboard/overview".to_owned(), "an hour ago"),
        ("/dashboard/submit?type=tokenize".to_owned(), "fields need attention"),
    ]
}

#[tokio::test]
async fn nothing_is_wider_than_a_phone() {
    let Some((server, browser)) = open(&["--max-running", "1"], "/dashboard").await else { return };
    browser.resize(360, 740).await;
    for (path, text) in views(&server).await {
        browser.open(&path).await;
        browser.until_text(text).await;
        let width = browser.run("return document.documentElement.scrollWidth", json!([])).await;
        assert!(width.as_u64().unwrap() <= 360, "{path}: {width}");
    }
}

/// Violated axe-core rules in the current page, and their places.
async fn broken_rules(browser: &Browser, axe: &str) -> Vec<String> {
    browser.run(axe, json!([])).await;
    let found = browser
        .run_async(
            "const found = await axe.run(document, { resultTypes: ['violations'] });
             return found.violations.map(({ impact, id, nodes }) => ({ impact, id, nodes: nodes.map((node) => node.html) }));",
        )
        .await;
    let Value::Array(found) = found else { panic!("axe-core did not run: {found}") };
    let bad = found.iter().filter(|one| one["impact"] == "serious" || one["impact"] == "critical");
    bad.map(Value::to_string).collect()
}

#[tokio::test]
async fn every_view_is_accessible_in_light_and_dark() {
    let place = "target/axe/node_modules/axe-core/axe.min.js";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
    let Ok(axe) = std::fs::read_to_string(&path) else {
        crate::common::skips::skip(&format!("no {place} (.ci/run fetches it)"));
        return;
    };
    let Some((server, browser)) = open(&["--max-running", "1"], "/dashboard").await else { return };
    let views = views(&server).await;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        for (path, text) in &views {
            browser.open(path).await;
            browser.until_text(text).await;
            let broken = broken_rules(&browser, &axe).await;
            assert_eq!(broken, Vec::<String>::new(), "{path}, {scheme}");
        }
        browser.open("/dashboard/submit?type=tokenize").await;
        browser.until_text("fields need attention").await;
        browser.click(".submit-line button").await;
        browser.until_text("Field required").await;
        assert_eq!(broken_rules(&browser, &axe).await, Vec::<String>::new(), "faults, {scheme}");
        browser.open("/dashboard").await;
        browser.click("thead input").await;
        browser.until_text("selected").await;
        assert_eq!(broken_rules(&browser, &axe).await, Vec::<String>::new(), "selected, {scheme}");
        browser.press("Cancel").await;
        browser.until("document.getElementById('ask').open").await;
        assert_eq!(broken_rules(&browser, &axe).await, Vec::<String>::new(), "asked, {scheme}");
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn colours_follow_the_system_until_they_are_chosen() {
    let Some((_server, browser)) = open(&[], "/dashboard").await else { return };
    let ground = "getComputedStyle(document.body).backgroundColor";
    let (light, dark) = ("'rgb(245, 246, 248)'", "'rgb(17, 21, 27)'");
    browser.prefer("dark").await;
    browser.until(&format!("{ground} === {dark}")).await;
    browser.prefer("light").await;
    browser.until(&format!("{ground} === {light}")).await;
    browser.press("Auto").await;
    browser.press("Light").await;
    browser.until(&format!("{ground} === {dark}")).await;
    browser.open("/dashboard/overview").await;
    browser.until(&format!("{ground} === {dark}")).await;
}
