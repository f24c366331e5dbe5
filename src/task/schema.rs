//! JSON Schemas of Rust types.

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// The schema of a type, in one piece.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    transform_subschemas(&mut bound_integers, &mut schema);
    schema.to_value()
}

/// Writes the limits of Rust's integer types as `maximum`, which schemars only names as `format`.
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
