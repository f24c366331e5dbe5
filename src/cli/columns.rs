//! Columns of `list`, printed as a table or as CSV.

use std::io::{self, Write};
use std::str::FromStr;

use serde_json::{Map, Value};

use super::ids::SHORT_LEN;
use super::record::{Record, plain};
use super::terminal::{age, cell, escape, is_interactive, print_table};

const DEFAULT: &str = "id,status,type,progress,age,input,message";
/// Fields that are objects, whose members can be columns too.
const OBJECTS: [&str; 3] = ["result", "parameters", "tags"];
/// Short names of fields.
const SHORT: [(&str, &str); 6] = [
    ("id", "task_id"),
    ("type", "task_type"),
    ("age", "created_at"),
    ("created", "created_at"),
    ("input", "input_file_path"),
    ("output", "output_file_path"),
];
/// Other fields.
const FIELDS: &str = "task_id task_type status progress message created_at started_at completed_at \
    updated_at error input_file_path output_file_path attempt max_attempts timeout_seconds \
    cancel_requested_at priority run_at retry_of retried_by queue_position waiting_because eta_seconds";

#[derive(Clone, Debug)]
struct Column {
    name: String,
    /// Field of the task, then member of that field.
    path: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Columns(Vec<Column>);

impl Default for Columns {
    fn default() -> Self {
        DEFAULT.parse().expect("the default columns exist")
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
        let is_object = OBJECTS.contains(&path[0].as_str());
        let is_field = path.len() == 1 && FIELDS.split(' ').any(|field| field == path[0]);
        if !is_object && !is_field {
            let shorts: Vec<_> = SHORT.iter().map(|(short, _)| *short).collect();
            return Err(format!(
                "unknown column `{name}`: expected {}, a field of tasks such as error or started_at, or a \
                 member such as result.token_count, parameters.width or tags.plate",
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

    fn table_cell(&self, record: &Record, fields: &Map<String, Value>) -> String {
        match self.name.as_str() {
            "id" => short_id(&record.task.task_id),
            "progress" => record.task.percent(),
            "age" => age(record.task.created_at),
            _ => cell(&plain(self.value(fields))),
        }
    }
}

impl Columns {
    /// Prints records as a table.
    pub(super) fn print_table(&self, records: &[Record], with_header: bool) -> io::Result<()> {
        let header = || self.0.iter().map(|column| column.name.to_uppercase()).collect();
        let row = |record: &Record| {
            let fields = record.fields();
            self.0.iter().map(|column| column.table_cell(record, &fields)).collect()
        };
        let rows: Vec<Vec<_>> =
            with_header.then(header).into_iter().chain(records.iter().map(row)).collect();
        print_table(&rows, self.0.iter().position(|column| column.name == "status"))
    }

    /// Prints records as CSV (RFC 4180), with values as in the JSON.
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

/// Quotes a CSV field if necessary.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// Shortens an id to its last digits on a terminal. The first ones are a timestamp.
fn short_id(id: &str) -> String {
    match id.get(id.len().saturating_sub(SHORT_LEN)..) {
        Some(end) if is_interactive() => escape(end),
        _ => escape(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_if_necessary() {
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
    fn columns_are_fields_and_members_of_objects() {
        for name in ["id", "input", "error", "result", "result.token_count", "tags.a.b"] {
            assert!(name.parse::<Columns>().is_ok(), "{name}");
        }
        for name in ["", "colour", "status.x", "id,colour"] {
            assert!(name.parse::<Columns>().is_err(), "{name}");
        }
    }
}
