//! A task as the server tells it.

use std::io;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::exit::{Exit, Failure};
use super::terminal::{age, escape, has_colours, paint, print_json, print_table};
use crate::task::Timestamp;

/// What the client needs to know of a task, and the rest as it came.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) json: String,
    pub(super) task: Task,
}

/// The fields that every version of the server has.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Task {
    pub(super) task_id: String,
    pub(super) status: String,
    pub(super) progress: f64,
    pub(super) message: String,
    pub(super) created_at: Timestamp,
}

impl Task {
    /// The exit code that goes with its end; `None` while it has not ended.
    pub(super) fn exit(&self) -> Option<Exit> {
        match self.status.as_str() {
            "completed" => Some(Exit::Done),
            "failed" => Some(Exit::Failed),
            "cancelled" => Some(Exit::Cancelled),
            _ => None,
        }
    }
}

impl Record {
    pub(super) fn parse(json: &str) -> Result<Self, Failure> {
        let task = serde_json::from_str(json).map_err(|error| {
            Failure::new(
                Exit::Protocol,
                format!("the answer is no task: {}", escape(&error.to_string())),
            )
        })?;
        Ok(Self { json: json.to_owned(), task })
    }

    /// The exit code that goes with the end of the task; `None` while it has not ended.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.task.exit()
    }

    pub(super) fn percent(&self) -> String {
        format!("{}%", self.task.progress.floor())
    }
}

/// Prints one task: every field that says something.
pub(super) fn print_details(record: &Record, as_json: bool) -> io::Result<()> {
    if as_json {
        return print_json(&record.json);
    }
    let fields = record.fields();
    let empty = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
    let told = fields.iter().filter(|(_, value)| !empty(value));
    let row = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => escape(text),
            other => escape(&other.to_string()),
        };
        let at = value.as_str().filter(|_| name.ends_with("_at")).and_then(|at| at.parse().ok());
        let text = match name.as_str() {
            "progress" => record.percent(),
            "status" => paint(&text, &record.task.status, has_colours()),
            "created_at" | "started_at" | "completed_at" | "updated_at" if let Some(at) = at => {
                format!("{text} ({} ago)", age(at))
            }
            _ => text,
        };
        vec![escape(name), text]
    };
    print_table(&told.map(row).collect::<Vec<_>>(), None)
}
