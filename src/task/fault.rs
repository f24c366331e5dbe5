//! Faults of a request, in the format of FastAPI.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use jsonschema::{JsonType, ValidationError};
use serde::Serialize;
use serde_json::{Map, Value};

/// Maximum number of faults in a response: a client could cause any number of them.
pub(crate) const MAX_FAULTS: usize = 100;

/// A fault in a request, in the format of FastAPI.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Fault {
    /// Kind of fault, such as `missing` or `int_type`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: &'static str,
    /// Path to the fault, from the outermost field inwards.
    #[schema(value_type = Vec<Value>)]
    pub loc: Vec<Value>,
    /// Description of the expected value.
    pub msg: String,
    /// Value found there.
    pub input: Value,
}

impl Fault {
    /// An invalid value.
    pub fn value(loc: &[&str], msg: impl Into<String>, input: impl Into<Value>) -> Self {
        Self { kind: "value_error", loc: path(loc), msg: msg.into(), input: input.into() }
    }

    /// An absent field that is required.
    pub fn missing(loc: &[&str], msg: impl Into<String>, input: impl Into<Value>) -> Self {
        Self { kind: "missing", loc: path(loc), msg: msg.into(), input: input.into() }
    }

    /// A name that is not one of `names`.
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

/// Converts an error of `schema` about the value at `prefix`.
pub(super) fn from_schema_error(
    error: &ValidationError<'_>,
    schema: &Value,
    prefix: &[&str],
) -> Vec<Fault> {
    let (loc, at_fault) = locate(error, schema, prefix);
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            return unknown_fields(unexpected, at_fault, &loc, error.instance());
        }
        // An `Option` is one schema or null: report the errors of that schema.
        ValidationErrorKind::AnyOf { context } => {
            let mut others = context.iter().filter(|errors| !errors.iter().any(expects_null));
            if let (Some(errors), None) = (others.next(), others.next()) {
                let faults = errors.iter().map(|error| from_schema_error(error, schema, prefix));
                return faults.flatten().collect();
            }
        }
        _ => {}
    }
    let loc = match error.kind() {
        ValidationErrorKind::Required { property } => [loc, vec![property.clone()]].concat(),
        _ => loc,
    };
    let (kind, msg) = describe(error, at_fault);
    vec![Fault { kind, loc, msg, input: error.instance().as_ref().clone() }]
}

/// Path to the fault, and the part of the schema that applies there.
fn locate<'s>(
    error: &ValidationError<'_>,
    mut schema: &'s Value,
    prefix: &[&str],
) -> (Vec<Value>, &'s Value) {
    let mut loc = path(prefix);
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
    (loc, schema)
}

/// Kind and message of a fault.
fn describe(error: &ValidationError<'_>, schema: &Value) -> (&'static str, String) {
    use ValidationErrorKind as Kind;
    let (kind, expected) = match error.kind() {
        Kind::Required { .. } => return ("missing", "Field required".to_owned()),
        Kind::Type { kind } => {
            let (kind, expected) = type_words(kind);
            (kind, expected.to_owned())
        }
        Kind::Minimum { limit } => {
            ("greater_than_equal", format!("greater than or equal to {limit}"))
        }
        Kind::Maximum { limit } => ("less_than_equal", format!("less than or equal to {limit}")),
        Kind::ExclusiveMinimum { limit } => ("greater_than", format!("greater than {limit}")),
        Kind::ExclusiveMaximum { limit } => ("less_than", format!("less than {limit}")),
        Kind::Enum { .. } | Kind::OneOfNotValid { .. } => {
            ("enum", format!("one of {}", choices(schema)))
        }
        Kind::Format { format } if format == "date-time" => {
            ("datetime_parsing", "a time such as 2026-01-31T15:30:00Z".to_owned())
        }
        // No parameter schema uses other keywords so far.
        _ => return ("value_error", error.to_string()),
    };
    (kind, format!("Input should be {expected}"))
}

/// The alternative of a nullable schema that is not null.
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

/// Suggests the closest name ("did you mean `steps`?"), or lists all names if none is close.
pub(crate) fn expected_names<'a>(
    found: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> String {
    // The comparison takes memory for each pair of letters.
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

/// The values that an enumerating schema allows.
fn choices(schema: &Value) -> String {
    let direct = schema["enum"].as_array().into_iter().flatten();
    let alternatives = schema["oneOf"].as_array().into_iter().flatten();
    let nested = alternatives.flat_map(|alternative| {
        let listed = alternative["enum"].as_array().into_iter().flatten();
        listed.chain(alternative.get("const"))
    });
    direct.chain(nested).map(Value::to_string).collect::<Vec<_>>().join(", ")
}

/// FastAPI's name of a type fault, and the expected type in words.
fn type_words(kind: &TypeKind) -> (&'static str, &'static str) {
    let expected = match kind {
        TypeKind::Single(expected) => Some(*expected),
        // Such as "type": ["string", "null"].
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
