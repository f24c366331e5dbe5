//! One request for each of several tasks.

use serde::Deserialize;

use super::client::{Client, Request};
use super::exit::{Exit, Failure, Outcome};
use super::terminal::{escape, even_unread, print_json, print_line};
use crate::task::TaskId;

/// What became of a request about one task.
#[derive(Deserialize)]
pub(super) struct Answer {
    pub(super) task_id: String,
    pub(super) message: String,
}

/// Sends one request a task and prints one line for each answer. A refusal does not keep the others
/// from being sent; the first one gives the exit code.
pub(super) async fn for_each(
    client: &Client,
    ids: &[TaskId],
    as_json: bool,
    request: impl Fn(TaskId) -> Request,
    line: impl Fn(&Answer) -> String,
) -> Outcome {
    let mut exit = Exit::Done;
    for &id in ids {
        match client.json(request(id)).await {
            Ok(json) if as_json => even_unread(print_json(&json))?,
            Ok(json) => {
                even_unread(print_line(&escape(&line(&client.parse(&json)?))))?;
            }
            Err(failure) if failure.exit == Exit::Unavailable => return Err(failure),
            Err(failure) => {
                Failure::new(failure.exit, format!("{id}: {}", failure.message)).say();
                if exit == Exit::Done {
                    exit = failure.exit;
                }
            }
        }
    }
    Ok(exit)
}
