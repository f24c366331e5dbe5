//! Task records as sent by the server.

use std::io;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::exit::{Exit, Failure};
use super::terminal::{age, escape, has_colours, paint, print_json, print_table};
use crate::task::Timestamp;

/// A task record, parsed as far as the client needs it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) json: String,
    pub(super) task: Task,
}

/// Fields that every version of the server sends.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Task {
    pub(super) task_id: String,
    pub(super) status: String,
    pub(super) progress: f64,
    pub(super) message: String,
    pub(super) created_at: Timestamp,
}

impl Task {
    /// Returns the exit code for the final status, or `None` while the task is unfinished.
    pub(super) fn exit(&self) -> Option<Exit> {
        match self.status.as_str() {
            "completed" => Some(Exit::Done),
            "failed" => Some(Exit::Failed),
            "cancelled" => Some(Exit::Cancelled),
            _ => None,
        }
    }

    pub(super) fn percent(&self) -> String {
        format!("{}%", self.progress.floor())
    }
}

impl Record {
    pub(super) fn parse(json: &str) -> Result<Self, Failure> {
        let task = serde_json::from_str(json).map_err(|error| {
            let error = escape(&error.to_string());
            Failure::new(Exit::Protocol, format!("invalid task in the response: {error}"))
        })?;
        Ok(Self { json: json.to_owned(), task })
    }

    /// Returns all fields as sent.
    pub(super) fn fields(&self) -> Map<String, Value> {
        serde_json::from_str(&self.json).unwrap_or_default()
    }
}

/// Formats a value: strings without quotes, null as nothing.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Prints the fields of a task that are set.
pub(super) fn print_details(record: &Record, as_json: bool) -> io::Result<()> {
    if as_json {
        return print_json(&record.json);
    }
    let fields = record.fields();
    let empty = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
    let row = |(name, value): (&String, &Value)| {
        let text = escape(&plain(value));
        let text = match name.as_str() {
            "progress" => record.task.percent(),
            "status" => paint(&text, &record.task.status, has_colours()),
            "created_at" | "started_at" | "completed_at" | "updated_at"
                if let Ok(at) = text.parse() =>
            {
                format!("{text} ({} ago)", age(at))
            }
            _ => text,
        };
        vec![escape(name), text]
    };
    let rows: Vec<_> = fields.iter().filter(|(_, value)| !empty(value)).map(row).collect();
    print_table(&rows, None)
}
