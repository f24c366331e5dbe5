//! What is wrong with a submission, as a list that names every place.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use jsonschema::{JsonType, ValidationError};
use serde::Serialize;
use serde_json::{Map, Value};

/// More faults than this are not told: nobody reads them, and a client could make a great many.
pub(crate) const MAX_FAULTS: usize = 100;

/// One thing that is wrong with a submission, in the shape FastAPI gives it.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Fault {
    /// What kind of fault, such as `missing` or `int_type`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: &'static str,
    /// Where, from the outermost field inwards.
    #[schema(value_type = Vec<Value>)]
    pub loc: Vec<Value>,
    /// What was expected, in words.
    pub msg: String,
    /// What was found there.
    pub input: Value,
}

impl Fault {
    /// A value that is not what it should be, in words of its own.
    pub fn value(loc: &[&str], msg: impl Into<String>, input: impl Into<Value>) -> Self {
        Self { kind: "value_error", loc: path(loc), msg: msg.into(), input: input.into() }
    }

    /// A field that has to be there and is not.
    pub fn missing(loc: &[&str], msg: impl Into<String>, input: impl Into<Value>) -> Self {
        Self { kind: "missing", loc: path(loc), msg: msg.into(), input: input.into() }
    }

    /// One of a few names was expected.
    pub fn choice<'a>(
        loc: &[&str],
        what: &str,
        found: &str,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Self {
        let msg = format!("unknown {what} `{found}`, {}", expected_names(found, names));
        Self { kind: "enum", loc: path(loc), msg, input: found.into() }
    }
}

fn path(loc: &[&str]) -> Vec<Value> {
    loc.iter().map(|&part| part.into()).collect()
}

/// The faults behind an error that `schema` found in the value at `prefix`.
pub(super) fn from_schema_error(
    error: &ValidationError<'_>,
    schema: &Value,
    prefix: &[&str],
) -> Vec<Fault> {
    let mut loc = path(prefix);
    let root = schema;
    let mut schema = schema;
    for segment in error.instance_path() {
        match segment {
            LocationSegment::Property(name) => {
                schema = &schema["properties"][name.as_ref()];
                loc.push(name.as_ref().into());
            }
            LocationSegment::Index(index) => {
                schema = &schema["items"];
                loc.push(index.into());
            }
        }
        schema = beside_null(schema);
    }
    let instance = error.instance().as_ref();
    let one =
        |kind, msg: String| vec![Fault { kind, loc: loc.clone(), msg, input: instance.clone() }];
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let mut loc = loc.clone();
            loc.push(property.clone());
            vec![Fault {
                kind: "missing",
                loc,
                msg: "Field required".to_owned(),
                input: instance.clone(),
            }]
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            unknown_fields(unexpected, schema, &loc, instance)
        }
        ValidationErrorKind::Type { kind } => {
            let (kind, expected) = type_words(kind);
            one(kind, format!("Input should be {expected}"))
        }
        ValidationErrorKind::Minimum { limit } => {
            one("greater_than_equal", format!("Input should be greater than or equal to {limit}"))
        }
        ValidationErrorKind::Maximum { limit } => {
            one("less_than_equal", format!("Input should be less than or equal to {limit}"))
        }
        ValidationErrorKind::ExclusiveMinimum { limit } => {
            one("greater_than", format!("Input should be greater than {limit}"))
        }
        ValidationErrorKind::ExclusiveMaximum { limit } => {
            one("less_than", format!("Input should be less than {limit}"))
        }
        ValidationErrorKind::Enum { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
            one("enum", format!("Input should be one of {}", choices(schema)))
        }
        // What may be left out (`Option`) is one schema or null.
        ValidationErrorKind::AnyOf { context } => {
            let mut others = context.iter().filter(|errors| !errors.iter().any(expects_null));
            match (others.next(), others.next()) {
                (Some(errors), None) => {
                    errors.iter().flat_map(|error| from_schema_error(error, root, prefix)).collect()
                }
                _ => one("value_error", error.to_string()),
            }
        }
        ValidationErrorKind::Format { format } if format == "date-time" => one(
            "datetime_parsing",
            "Input should be a time such as 2026-01-31T15:30:00Z".to_owned(),
        ),
        // Keywords that no parameter schema has so far; the validator's own words serve.
        _ => one("value_error", error.to_string()),
    }
}

/// Of a schema that allows something or null, what is not null.
fn beside_null(schema: &Value) -> &Value {
    let alternatives = schema["anyOf"].as_array().into_iter().flatten();
    let mut others = alternatives.filter(|alternative| alternative["type"] != "null");
    match (others.next(), others.next()) {
        (Some(other), None) => other,
        _ => schema,
    }
}

fn expects_null(error: &ValidationError<'_>) -> bool {
    matches!(error.kind(), ValidationErrorKind::Type { kind: TypeKind::Single(JsonType::Null) })
}

fn unknown_fields(
    unexpected: &[String],
    schema: &Value,
    loc: &[Value],
    instance: &Value,
) -> Vec<Fault> {
    let none = Map::new();
    let known = schema["properties"].as_object().unwrap_or(&none);
    let fault = |field: &String| {
        let mut loc = loc.to_vec();
        loc.push(field.as_str().into());
        let expected = expected_names(field, known.keys().map(String::as_str));
        Fault {
            kind: "extra_forbidden",
            loc,
            msg: format!("unknown field `{field}`, {expected}"),
            input: instance[field.as_str()].clone(),
        }
    };
    unexpected.iter().take(MAX_FAULTS).map(fault).collect()
}

/// "did you mean `steps`?" where a name comes close, else all of them.
pub(crate) fn expected_names<'a>(
    found: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> String {
    // Comparing takes memory for each pair of letters.
    if found.len() > 4 * names.clone().map(str::len).max().unwrap_or(0) {
        return list_names(names);
    }
    let close = |&(distance, name): &(usize, &str)| {
        let abbreviated = found.len() >= 3 && name.starts_with(found);
        abbreviated || distance <= name.len().max(found.len()).div_ceil(3)
    };
    let distances = names.clone().map(|name| (strsim::damerau_levenshtein(found, name), name));
    if let Some((_, name)) = distances.filter(close).min() {
        return format!("did you mean `{name}`?");
    }
    list_names(names)
}

fn list_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        return "expected none".to_owned();
    }
    format!("expected one of {}", names.join(", "))
}

/// The values that a schema of alternatives allows.
fn choices(schema: &Value) -> String {
    let direct = schema["enum"].as_array().into_iter().flatten();
    let alternatives = schema["oneOf"].as_array().into_iter().flatten();
    let nested = alternatives.flat_map(|alternative| {
        let listed = alternative["enum"].as_array().into_iter().flatten();
        listed.chain(alternative.get("const"))
    });
    direct.chain(nested).map(Value::to_string).collect::<Vec<_>>().join(", ")
}

/// FastAPI's name for a fault of type, and what should have been there.
fn type_words(kind: &TypeKind) -> (&'static str, &'static str) {
    let expected = match kind {
        TypeKind::Single(expected) => Some(*expected),
        // "type": ["string", "null"] and its like: name what is not null.
        TypeKind::Multiple(types) => types.iter().find(|&one| one != JsonType::Null),
    };
    match expected {
        Some(JsonType::Integer) => ("int_type", "a whole number"),
        Some(JsonType::Number) => ("float_type", "a number"),
        Some(JsonType::String) => ("string_type", "a string"),
        Some(JsonType::Boolean) => ("bool_type", "true or false"),
        Some(JsonType::Array) => ("list_type", "an array"),
        Some(JsonType::Object) => ("dict_type", "an object"),
        Some(JsonType::Null) | None => ("none_required", "null"),
    }
}
