//! The table of tasks.

use serde_json::json;

use crate::common::{Server, dummy, endless};
use crate::dashboard::{busy, open, page_of};

/// Script that returns the number of rows in the table.
const ROWS: &str = "document.querySelectorAll('tbody tr').length";

fn row(id: &str) -> String {
    format!("document.querySelector('tr[data-id=\"{id}\"]')")
}

/// Keeps submitted tasks pending, so that nothing changes by itself.
async fn occupied(server: &Server) -> String {
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    id
}

#[tokio::test]
async fn the_table_follows_what_happens() {
    let Some((server, browser)) = open(&["--max-running", "1"], "/dashboard").await else {
        return;
    };
    browser.until_text("Nothing was submitted yet").await;
    let running = server.submit(busy()).await;
    let text = format!("{}?.innerText", row(&running));
    browser.until(&format!("{text}?.includes('Processing step')")).await;
    let pending = server.submit(dummy(0.0)).await;
    browser
        .until(&format!(
            "{}?.innerText.includes('Waiting for a free slot (1 of 1 busy)')",
            row(&pending)
        ))
        .await;
    // Newest first.
    browser
        .until(&format!("{}.rowIndex === 1 && {}.rowIndex === 2", row(&pending), row(&running)))
        .await;
    server.delete(&format!("/tasks/{running}")).await;
    browser.until(&format!("{text}.includes('cancelled')")).await;
    browser.until(&format!("{}.innerText.includes('completed')", row(&pending))).await;
    browser.until("document.querySelector('.chip.completed .count').textContent === '1'").await;
}

#[tokio::test]
async fn filters_stand_in_the_address() {
    let Some((server, browser)) = open(&["--max-running", "1"], "/dashboard").await else {
        return;
    };
    let running = occupied(&server).await;
    let mut body = dummy(0.0);
    body["tags"] = json!({ "plate": "7" });
    let tagged = server.submit(body).await;
    let other = server.submit(dummy(0.0)).await;
    browser.until(&format!("{ROWS} === 3")).await;

    browser.click(".chip.pending").await;
    browser.until(&format!("{ROWS} === 2 && !{}", row(&running))).await;
    assert_eq!(browser.path().await, "/dashboard?status=pending");
    browser.fill("[name=tag]", "plate=7").await;
    browser.keys("\u{e007}").await;
    browser.until(&format!("{ROWS} === 1 && {} !== null", row(&tagged))).await;
    assert_eq!(browser.path().await, "/dashboard?status=pending&tag.plate=7");
    browser.back().await;
    browser.until(&format!("{ROWS} === 2 && {} !== null", row(&other))).await;
    browser.back().await;
    browser.until(&format!("{ROWS} === 3")).await;
    browser.choose("select[aria-label=Type]", "dummy_very_long").await;
    browser.until(&format!("{ROWS} === 1 && {} !== null", row(&running))).await;
    browser.open("/dashboard?status=completed").await;
    browser.until_text("No task matches").await;
    // Tasks that start to match the filter appear.
    server.delete(&format!("/tasks/{running}")).await;
    browser.until(&format!("{ROWS} === 2")).await;
}

#[tokio::test]
async fn many_are_selected_cancelled_and_retried() {
    let Some((server, browser)) = open(&["--max-running", "1"], "/dashboard").await else {
        return;
    };
    let running = occupied(&server).await;
    let mut pending = Vec::new();
    for _ in 0..3 {
        pending.push(server.submit(endless()).await);
    }
    browser.until(&format!("{ROWS} === 4")).await;
    for id in &pending[..2] {
        browser.click(&format!("tr[data-id=\"{id}\"] input")).await;
    }
    browser.until_text("2 selected").await;
    browser.press("Cancel").await;
    browser.until_text("Cancel 2 tasks?").await;
    browser.press("Cancel them").await;
    browser.until_text("2 cancelled").await;
    for (id, status) in [
        (&pending[0], "cancelled"),
        (&pending[1], "cancelled"),
        (&pending[2], "pending"),
        (&running, "running"),
    ] {
        assert_eq!(server.task(id).await["status"], status);
    }
    browser.until(&format!("{}.innerText.includes('cancelled')", row(&pending[1]))).await;
    browser.click("thead input").await;
    browser.until_text("4 selected").await;
    browser.press("Retry").await;
    browser.press("Submit again").await;
    browser.until_text("2 submitted again").await;
    browser.until(&format!("{ROWS} === 6")).await;
}

#[tokio::test]
async fn completed_tasks_run_again_only_after_a_question() {
    let Some((server, browser)) = open(&[], "/dashboard").await else { return };
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    browser.until(&format!("{}?.innerText.includes('completed')", row(&id))).await;
    browser.click(&format!("tr[data-id=\"{id}\"] input")).await;
    browser.press("Run again").await;
    browser.until_text("Run this task again?").await;
    browser.press("Back").await;
    assert_eq!(server.get("/tasks").await.body.as_array().unwrap().len(), 1);
    browser.click(&format!("tr[data-id=\"{id}\"] input")).await;
    browser.press("Run again").await;
    browser.press("Submit again").await;
    browser.until(&format!("{ROWS} === 2")).await;
    // A bar would add nothing to the status.
    browser.until("document.querySelectorAll('tr .pill.completed').length === 2").await;
    browser.until("document.querySelectorAll('tr progress').length === 0").await;
}

#[tokio::test]
async fn only_pending_tasks_are_asked_for_again_and_their_start_is_counted_down_to() {
    let Some((server, browser)) = open(&[], "/dashboard").await else { return };
    for _ in 0..3 {
        let id = server.submit(dummy(0.0)).await;
        server.wait_for(&id, "completed").await;
    }
    let mut body = dummy(0.0);
    body["run_at"] = "2999-01-01T00:00:00Z".into();
    let scheduled = server.submit(body).await;
    browser.until(&format!("{ROWS} === 4")).await;
    browser
        .run(
            "const fetched = window.fetch; window.asked = [];
             window.fetch = (path, options) => { window.asked.push(path); return fetched(path, options); };",
            json!([]),
        )
        .await;
    browser.until("asked.some((path) => path === '/tasks?status=pending&limit=1')").await;
    browser
        .until(
            "asked.every((path) => !path.startsWith('/tasks') || path.includes('status=pending'))",
        )
        .await;
    let text = format!("{}.querySelector('.message').innerText", row(&scheduled));
    browser.until(&format!("{text}.includes('Starts in')")).await;

    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(600);
    let mut body = dummy(0.0);
    body["run_at"] = jiff::Timestamp::try_from(soon).unwrap().to_string().into();
    let scheduled = server.submit(body).await;
    browser.open(&page_of(&scheduled)).await;
    browser
        .until("document.querySelector('.waits')?.textContent.includes('Starts in 9 min')")
        .await;
    let first = browser.run("return document.querySelector('.waits').textContent", json!([])).await;
    browser.until(&format!("document.querySelector('.waits').textContent !== {first}")).await;
}

#[tokio::test]
async fn pages_lead_to_older_tasks_and_back() {
    let Some((server, browser)) = open(&["--max-running", "1"], "/dashboard").await else {
        return;
    };
    let first = occupied(&server).await;
    for _ in 0..70 {
        server.submit(dummy(0.0)).await;
    }
    let newest = server.submit(dummy(0.0)).await;
    browser.until(&format!("{ROWS} === 50 && {} !== null && !{}", row(&newest), row(&first))).await;
    browser.press("Older").await;
    browser.until(&format!("{ROWS} === 22 && {} !== null", row(&first))).await;
    let path = browser.path().await;
    assert!(path.starts_with("/dashboard?cursor="), "{path}");
    // New tasks belong to the first page.
    let newer = server.submit(dummy(0.0)).await;
    browser.press("Newer").await;
    browser.until(&format!("{ROWS} === 50 && {} !== null", row(&newer))).await;
    browser.open(&path).await;
    browser.until(&format!("{ROWS} === 22 && {} !== null", row(&first))).await;
    browser.press("To the newest").await;
    browser.until(&format!("{} !== null", row(&newer))).await;
}

#[tokio::test]
async fn a_task_is_found_by_its_id() {
    let Some((server, browser)) = open(&[], "/dashboard").await else { return };
    let id = server.submit(dummy(0.0)).await;
    browser.fill("#find input", "nonsense").await;
    browser.keys("\u{e007}").await;
    browser.until_text("That is no task id").await;
    browser.fill("#find input", &id).await;
    browser.keys("\u{e007}").await;
    browser.until(&format!("location.pathname === '{}'", page_of(&id))).await;
    browser.until_text("Task completed successfully").await;
}

#[tokio::test]
async fn an_unknown_address_leads_back_to_the_tasks() {
    let Some((_server, browser)) = open(&[], "/dashboard/nosuch").await else { return };
    browser.until_text("There is no such page").await;
    browser.press("All tasks").await;
    browser.until_text("Nothing was submitted yet").await;
}
