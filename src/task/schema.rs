//! JSON Schemas of Rust types, compiled for validation.

use jsonschema::{PatternOptions, Validator};
use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::fault::{Fault, MAX_FAULTS, from_schema_error};

/// A JSON Schema with its validator.
#[derive(Debug)]
pub(crate) struct CompiledSchema {
    document: Value,
    validator: Validator,
}

impl CompiledSchema {
    /// # Errors
    /// If `document` is not a valid JSON Schema, with the reason.
    pub(crate) fn new(document: Value) -> Result<Self, String> {
        // Patterns match in linear time: the texts come from clients.
        let options = jsonschema::options()
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex());
        let validator = options.build(&document).map_err(|error| {
            let place = error.instance_path().to_string();
            if place.is_empty() { error.to_string() } else { format!("{place}: {error}") }
        })?;
        Ok(Self { document, validator })
    }

    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    pub(crate) fn accepts(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }

    /// Faults in `value`, which is at `loc` in the request; at most [`MAX_FAULTS`].
    pub(crate) fn faults(&self, value: &Value, loc: &[&str]) -> Vec<Fault> {
        let errors = self.validator.iter_errors(value);
        let faults = errors.flat_map(|error| from_schema_error(&error, &self.document, loc));
        faults.take(MAX_FAULTS).collect()
    }
}

/// Schema of a type, without references.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    transform_subschemas(&mut bound_integers, &mut schema);
    schema.to_value()
}

/// Adds `maximum` for the integer types that schemars identifies by `format` alone.
fn bound_integers(schema: &mut Schema) {
    let limit = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => u64::from(u8::MAX),
        Some("uint16") => u64::from(u16::MAX),
        Some("uint32") => u64::from(u32::MAX),
        Some("int32") => i32::MAX as u64,
        _ => return,
    };
    if schema.get("maximum").is_none() {
        schema.insert("maximum".to_owned(), limit.into());
    }
}
