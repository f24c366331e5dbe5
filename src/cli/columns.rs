//! Columns of lists: for people as a table, for spreadsheets as CSV.

use std::io::{self, Write};
use std::str::FromStr;

use serde_json::{Map, Value};

use super::record::Record;
use super::terminal::{age, cell, escape, is_for_people, print_table};

/// Columns unless others are asked for.
const USUAL: &str = "id,status,type,progress,age,input,message";
/// Fields of tasks that are objects, whose parts can be columns too.
const OBJECTS: [&str; 3] = ["result", "parameters", "tags"];
/// Names that are shorter than those of the fields.
const SHORT: [(&str, &str); 6] = [
    ("id", "task_id"),
    ("type", "task_type"),
    ("age", "created_at"),
    ("created", "created_at"),
    ("input", "input_file_path"),
    ("output", "output_file_path"),
];
/// Other fields of tasks.
const FIELDS: [&str; 24] = [
    "task_id",
    "task_type",
    "status",
    "progress",
    "message",
    "created_at",
    "started_at",
    "completed_at",
    "updated_at",
    "error",
    "input_file_path",
    "output_file_path",
    "attempt",
    "max_attempts",
    "timeout_seconds",
    "cancel_requested_at",
    "priority",
    "run_at",
    "retry_of",
    "retried_by",
    "queue_position",
    "waiting_because",
    "eta_seconds",
    "result",
];

/// One column.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    /// The field of the task, and the parts of it that lead to the value.
    path: Vec<String>,
}

/// The columns of a list, in order.
#[derive(Clone, Debug)]
pub(super) struct Columns(Vec<Column>);

impl Default for Columns {
    fn default() -> Self {
        USUAL.parse().expect("the usual columns are known")
    }
}

impl FromStr for Columns {
    type Err = String;

    fn from_str(names: &str) -> Result<Self, Self::Err> {
        names.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Column {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let short = SHORT.iter().find(|(short, _)| *short == name);
        let path: Vec<_> = match short {
            Some((_, field)) => vec![(*field).to_owned()],
            None => name.splitn(2, '.').map(str::to_owned).collect(),
        };
        let is_field = FIELDS.contains(&path[0].as_str()) || OBJECTS.contains(&path[0].as_str());
        if !is_field || (path.len() > 1 && !OBJECTS.contains(&path[0].as_str())) {
            let shorts: Vec<_> = SHORT.iter().map(|(short, _)| *short).collect();
            return Err(format!(
                "unknown column `{name}`: expected {}, a field of tasks such as error or started_at, or a part \
                 such as result.token_count, parameters.width or tags.plate",
                shorts.join(", ")
            ));
        }
        Ok(Self { name: name.to_owned(), path })
    }
}

impl Column {
    fn value<'f>(&self, fields: &'f Map<String, Value>) -> &'f Value {
        let mut path = self.path.iter();
        let field = path.next().and_then(|field| fields.get(field)).unwrap_or(&Value::Null);
        path.fold(field, |value, part| value.get(part).unwrap_or(&Value::Null))
    }

    /// As people read it.
    fn text(&self, record: &Record, fields: &Map<String, Value>) -> String {
        match self.name.as_str() {
            "id" => record.short_id(),
            "progress" => record.percent(),
            "age" => age(record.task.created_at),
            _ => cell(&plain(self.value(fields))),
        }
    }
}

impl Columns {
    /// Prints one line a task; the header where it is asked for.
    pub(super) fn print_table(&self, records: &[Record], with_header: bool) -> io::Result<()> {
        let header = || self.0.iter().map(|column| column.name.to_uppercase()).collect();
        let row = |record: &Record| {
            let fields = record.fields();
            self.0.iter().map(|column| column.text(record, &fields)).collect()
        };
        let rows: Vec<Vec<_>> =
            with_header.then(header).into_iter().chain(records.iter().map(row)).collect();
        print_table(&rows, self.0.iter().position(|column| column.name == "status"))
    }

    /// Prints records as CSV (RFC 4180): whole values, times and numbers as in the JSON.
    pub(super) fn print_csv(&self, records: &[Record], with_header: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let mut line = |cells: Vec<String>| write!(out, "{}\r\n", cells.join(","));
        if with_header {
            line(self.0.iter().map(|column| quoted(&column.name)).collect())?;
        }
        for record in records {
            let fields = record.fields();
            line(self.0.iter().map(|column| quoted(&plain(column.value(&fields)))).collect())?;
        }
        Ok(())
    }
}

/// A value as text; nothing for null.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A field of CSV, in quotes where it needs them.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

impl Record {
    /// All fields, as the server sent them.
    pub(super) fn fields(&self) -> Map<String, Value> {
        serde_json::from_str(&self.json).unwrap_or_default()
    }

    /// The id, cut to its end where people read: ids of one hour begin alike.
    fn short_id(&self) -> String {
        let id = &self.task.task_id;
        match id.get(id.len().saturating_sub(super::ids::SHORT)..) {
            Some(end) if is_for_people() => escape(end),
            _ => escape(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_quotes_gets_them() {
        for (text, field) in [
            ("plain text", "plain text"),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("", ""),
        ] {
            assert_eq!(quoted(text), field);
        }
    }

    #[test]
    fn columns_are_fields_and_parts_of_objects() {
        for name in ["id", "input", "error", "result", "result.token_count", "tags.a.b"] {
            assert!(name.parse::<Columns>().is_ok(), "{name}");
        }
        for name in ["", "colour", "status.x", "id,colour"] {
            assert!(name.parse::<Columns>().is_err(), "{name}");
        }
    }
}
