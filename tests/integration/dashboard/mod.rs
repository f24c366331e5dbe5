//! The dashboard in a real browser. Skipped aloud where there is none.

mod browser;
mod documentation;
mod form;
mod keys;
mod looks;
mod output;
mod restart;
mod table;
mod task;
mod widths;

use crate::common::Server;
use browser::Browser;
use serde_json::{Value, json};

/// A server with these arguments, and a browser that shows a page of it.
async fn open(args: &[&str], path: &str) -> Option<(Server, Browser)> {
    let server = Server::start(args);
    let browser = Browser::start(server.address()).await?;
    browser.open(path).await;
    Some((server, browser))
}

/// A submission that reports progress ten times a second and outlives the test.
fn busy() -> Value {
    json!({ "task_type": "dummy_long", "parameters": { "duration": 1e5, "steps": 1_000_000 } })
}

fn page_of(id: &str) -> String {
    format!("/dashboard/tasks/{id}")
}

/// What stands in the first element that this selector finds, as a script.
fn text_of(css: &str) -> String {
    format!("document.querySelector({})?.textContent", json!(css))
}
