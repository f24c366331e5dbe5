//! Parameters of a task on the command line.

use std::{fs, io};

use clap::Args;
use jsonschema::JsonType;
use serde_json::{Map, Number, Value};

use super::exit::{Exit, Failure};

/// Bounds recursion, since references in a schema may be cyclic.
const MAX_DEPTH: usize = 8;

#[derive(Args, Debug)]
pub(super) struct TaskArgs {
    /// Task type, see `task-server types`
    #[arg(value_name = "TYPE")]
    pub(super) task_type: String,

    /// Parameter; repeatable. The value is JSON, or a string if it is not JSON or the task expects a
    /// string
    #[arg(short, long = "parameter", value_name = "KEY=VALUE", value_parser = pair)]
    parameter: Vec<(String, String)>,

    /// Parameters as a JSON object, @FILE, or @- for standard input; -p takes precedence
    #[arg(long, value_name = "JSON|@FILE")]
    parameters: Option<String>,

    /// Input file
    #[arg(long, value_name = "PATH")]
    pub(super) input: Option<String>,

    /// Output file; appears whole when the task completes
    #[arg(long, value_name = "PATH")]
    pub(super) output: Option<String>,

    /// Time limit of an attempt, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<Number>,
}

/// Parses `KEY=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

impl TaskArgs {
    /// Returns whether `parameters` needs the schema.
    pub(super) fn needs_schema(&self) -> bool {
        !self.parameter.is_empty()
    }

    /// Merges `--parameters` and `-p`. The JSON Schema decides which values are strings.
    pub(super) fn parameters(&self, schema: &Value) -> Result<Map<String, Value>, Failure> {
        let mut parameters = match &self.parameters {
            Some(given) => object(given)?,
            None => Map::new(),
        };
        for (key, text) in &self.parameter {
            parameters.insert(key.clone(), value(text, &schema["properties"][key], schema));
        }
        Ok(parameters)
    }
}

fn object(given: &str) -> Result<Map<String, Value>, Failure> {
    let text = match given.strip_prefix('@') {
        None => given.to_owned(),
        Some(file) => read(file).map_err(|error| {
            Failure::new(Exit::NoInput, format!("--parameters: cannot read `{file}`: {error}"))
        })?,
    };
    serde_json::from_str(&text).map_err(|error| {
        let message = format!("--parameters: expected a JSON object or @FILE: {error}");
        Failure::new(Exit::Usage, message)
    })
}

fn read(file: &str) -> io::Result<String> {
    match file {
        "-" => io::read_to_string(io::stdin()),
        file => fs::read_to_string(file),
    }
}

/// Parses the value of a parameter with schema `property`.
fn value(text: &str, property: &Value, schema: &Value) -> Value {
    let mut expected = Vec::new();
    expected_types(property, schema, MAX_DEPTH, &mut expected);
    let Ok(parsed) = serde_json::from_str::<Value>(text) else { return text.into() };
    let is_expected = match &parsed {
        Value::Number(_) => expected.contains(&"number") || expected.contains(&"integer"),
        other => expected.contains(&JsonType::from(other).as_str()),
    };
    if expected.contains(&"string") && (!is_expected || parsed.is_string()) {
        return text.into();
    }
    parsed
}

/// Collects the JSON types that a schema allows; none if it does not restrict them.
fn expected_types<'a>(
    property: &'a Value,
    schema: &'a Value,
    depth: usize,
    found: &mut Vec<&'a str>,
) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match &property["type"] {
        Value::String(name) => found.push(name),
        Value::Array(names) => found.extend(names.iter().filter_map(Value::as_str)),
        _ => {}
    }
    let listed = property["enum"].as_array().into_iter().flatten();
    for value in listed.chain(property.get("const")) {
        found.push(JsonType::from(value).as_str());
    }
    for choice in ["anyOf", "oneOf"] {
        for alternative in property[choice].as_array().into_iter().flatten() {
            expected_types(alternative, schema, depth, found);
        }
    }
    let named = property["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/"));
    if let Some(named) = named {
        expected_types(&schema["$defs"][named], schema, depth, found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_schema_decides_which_values_are_strings() {
        let schema = json!({ "$defs": { "Format": { "enum": ["1", "2"] } } });
        for (text, property, wanted) in [
            ("7", json!({ "type": "string" }), json!("7")),
            ("\"7\"", json!({ "type": "string" }), json!("\"7\"")),
            ("7", json!({ "type": "integer" }), json!(7)),
            ("7.5", json!({ "type": ["number", "null"] }), json!(7.5)),
            ("null", json!({ "type": ["string", "null"] }), json!(null)),
            ("true", json!({ "type": ["string", "null"] }), json!("true")),
            ("1", json!({ "$ref": "#/$defs/Format" }), json!("1")),
            ("7", json!({ "oneOf": [{ "const": "7" }, { "const": "8" }] }), json!("7")),
            ("7", json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] }), json!(7)),
            ("long", json!({ "type": "number" }), json!("long")),
            ("[1, 2]", json!(null), json!([1, 2])),
            ("a=b", json!(null), json!("a=b")),
        ] {
            assert_eq!(value(text, &property, &schema), wanted, "{text} as {property}");
        }
    }
}
