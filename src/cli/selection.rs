//! Tasks chosen by id or by filters, and the requests of `cancel` and `retry` about them.

use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::{Client, Connection, Request};
use super::exit::{Exit, Failure, Outcome};
use super::filters::Filters;
use super::ids::{TaskName, resolve};
use super::terminal::{escape, ignore_broken_pipe, print_json, print_line};
use crate::task::TaskId;

/// Tasks, by id or by filters.
#[derive(Args, Debug)]
pub(super) struct Selection {
    /// Task ids, or the last 8 digits of each
    #[arg(value_name = "ID", conflicts_with = "Filters")]
    pub(super) ids: Vec<TaskName>,

    #[command(flatten)]
    pub(super) filters: Filters,
}

/// Response to a request about one task.
#[derive(Deserialize)]
pub(super) struct Answer {
    pub(super) task_id: String,
    pub(super) message: String,
}

impl Selection {
    /// Fails if nothing is selected, so that no verb applies to all tasks by accident.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.ids.is_empty() && self.filters.is_empty() {
            let message = "no tasks given: expected ids, --status, --type or --tag";
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(())
    }

    /// Sends `one` for each id, or a single POST to `bulk` for all tasks that match the filters.
    pub(super) async fn apply<C: DeserializeOwned>(
        &self,
        connection: &Connection,
        one: impl Fn(TaskId) -> Request,
        line: impl Fn(Answer) -> String,
        bulk: &str,
        summary: impl Fn(C) -> String,
    ) -> Outcome {
        let client = Client::new(connection)?;
        self.check()?;
        if !self.ids.is_empty() {
            let ids = resolve(&client, &self.ids).await?;
            return for_each(&client, ids, connection.json, one, line).await;
        }
        let path = format!("{bulk}?{}", self.filters.query(None));
        let json = client.json(Request::new(Method::POST, path)).await?;
        match connection.json {
            true => print_json(&json)?,
            false => print_line(&summary(client.parse(&json)?))?,
        }
        Ok(Exit::Done)
    }
}

/// Sends a request per task and prints a line per response. Continues after an error response; the
/// first one determines the exit code.
async fn for_each(
    client: &Client,
    ids: Vec<TaskId>,
    as_json: bool,
    request: impl Fn(TaskId) -> Request,
    line: impl Fn(Answer) -> String,
) -> Outcome {
    let mut exit = Exit::Done;
    for id in ids {
        match client.json(request(id)).await {
            Ok(json) if as_json => ignore_broken_pipe(print_json(&json))?,
            Ok(json) => ignore_broken_pipe(print_line(&escape(&line(client.parse(&json)?))))?,
            Err(failure) if failure.exit == Exit::Unavailable => return Err(failure),
            Err(failure) => {
                Failure::new(failure.exit, format!("{id}: {}", failure.message)).report();
                if exit == Exit::Done {
                    exit = failure.exit;
                }
            }
        }
    }
    Ok(exit)
}
