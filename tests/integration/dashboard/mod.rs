//! The dashboard in a real browser. Skipped on machines without one.

mod browser;
mod documentation;
mod form;
mod keys;
mod log;
mod looks;
mod output;
mod restart;
mod table;
mod task;
mod widths;

use crate::common::Server;
use browser::Browser;
use serde_json::{Value, json};

/// Starts a server with these arguments, and a browser that shows one of its pages.
async fn open(args: &[&str], path: &str) -> Option<(Server, Browser)> {
    let server = Server::start(args);
    let browser = Browser::start(server.address()).await?;
    browser.open(path).await;
    Some((server, browser))
}

/// Submission of a task that reports progress ten times a second and outlives the test.
fn busy() -> Value {
    json!({ "task_type": "dummy_long", "parameters": { "duration": 1e5, "steps": 1_000_000 } })
}

fn page_of(id: &str) -> String {
    format!("/dashboard/tasks/{id}")
}

/// Script that returns the text of the first element that matches the selector.
fn text_of(css: &str) -> String {
    format!("document.querySelector({})?.textContent", json!(css))
}
