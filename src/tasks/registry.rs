//! Maps each task type to its code and its default parameters.

use std::any::type_name;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::*;
use crate::task::{CompiledSchema, Fault, Paths, Task, TaskType, schema_of};

/// Task types and the task that runs for each: the one place that knows which types there are.
#[derive(Debug)]
pub struct TaskRegistry {
    /// In the order in which they are listed to users.
    types: Vec<(TaskType, RegisteredTask)>,
}

impl TaskRegistry {
    /// The built-in tasks.
    pub fn builtin() -> Self {
        let types = TaskType::ALL.iter().map(|&task_type| (task_type, register(task_type)));
        Self { types: types.collect() }
    }

    /// A type by its name on the wire, if there is one.
    pub fn find(&self, name: &str) -> Option<(TaskType, &RegisteredTask)> {
        self.iter().find(|(task_type, _)| task_type.name() == name)
    }

    /// All types, in the order in which they are listed to users.
    pub fn iter(&self) -> impl Iterator<Item = (TaskType, &RegisteredTask)> {
        self.types.iter().map(|(task_type, task)| (*task_type, task))
    }

    /// The names of all types, in that order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &'static str> + Clone {
        self.types.iter().map(|(task_type, _)| task_type.name())
    }

    /// Checks that all tasks accept their default parameters. Required parameters need no default.
    ///
    /// # Errors
    /// All faults in the defaults of one type.
    pub fn check(&self) -> Result<(), InvalidDefaults> {
        for (task_type, task) in self.iter() {
            let mut faults = task.parse(&task.merge(Map::new())).err().unwrap_or_default();
            faults.retain(|fault| fault.kind != "missing");
            if !faults.is_empty() {
                return Err(InvalidDefaults { task_type: task_type.name(), faults });
            }
        }
        Ok(())
    }

    /// Replaces the built-in code of a type; for tests.
    pub fn replace<T>(&mut self, task_type: TaskType, defaults: Value)
    where
        T: Task + DeserializeOwned + JsonSchema,
    {
        let replaced = entry::<T>(defaults);
        match self.types.iter_mut().find(|(known, _)| *known == task_type) {
            Some((_, task)) => *task = replaced,
            None => self.types.push((task_type, replaced)),
        }
    }
}

/// Error of default parameters that their task refuses.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid default parameters of `{task_type}` in src/tasks/registry.rs: {}",
    faults.iter().map(in_words).collect::<Vec<_>>().join("; ")
)]
pub struct InvalidDefaults {
    task_type: &'static str,
    faults: Vec<Fault>,
}

/// Message of a fault, preceded by its parameter.
fn in_words(fault: &Fault) -> String {
    match fault.loc.get(1).and_then(Value::as_str) {
        Some(parameter) => format!("`{parameter}`: {}", fault.msg),
        None => fault.msg.clone(),
    }
}

/// Field of a submission that holds the parameters.
const PARAMETERS: &str = "parameters";

/// Code and default parameters, one line per type.
#[rustfmt::skip]
fn register(task_type: TaskType) -> RegisteredTask {
    match task_type {
        TaskType::DummyShort => entry::<dummy::DummyTask>(json!({ "duration": 5, "steps": 5 })),
        TaskType::DummyLong => entry::<dummy::DummyTask>(json!({ "duration": 30, "steps": 10 })),
        TaskType::DummyVeryLong => entry::<dummy::DummyTask>(json!({ "duration": 120, "steps": 20 })),
        TaskType::Tokenize => entry::<tokenize::TokenizeTask>(json!({ "encoding": "cl100k_base", "sleep_duration": 60, "special_tokens": "text" })),
        TaskType::ImageProcess => entry::<image_process::ImageProcessTask>(json!({ "width": 800, "height": 600, "format": null, "quality": 85, "fit": "stretch" })),
    }
}

/// A task type's code and its description.
#[derive(Debug)]
pub struct RegisteredTask {
    paths: Paths,
    defaults: Map<String, Value>,
    schema: CompiledSchema,
    deserialize: fn(&Value) -> serde_json::Result<Box<dyn Task>>,
}

fn entry<T: Task + DeserializeOwned + JsonSchema>(defaults: Value) -> RegisteredTask {
    let Value::Object(defaults) = defaults else {
        panic!("invalid default parameters of {}: expected a JSON object", type_name::<T>());
    };
    let mut schema = schema_of::<T>();
    publish_defaults(&mut schema, &defaults);
    RegisteredTask {
        paths: T::paths(),
        defaults,
        schema: CompiledSchema::new(schema),
        deserialize: |parameters| Ok(Box::new(T::deserialize(parameters)?)),
    }
}

/// Adds the defaults to the schema, which then no longer requires their fields.
fn publish_defaults(schema: &mut Value, defaults: &Map<String, Value>) {
    for (field, default) in defaults {
        if let Some(property) = schema["properties"].get_mut(field) {
            property["default"] = default.clone();
        }
    }
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|field| field.as_str().is_none_or(|field| !defaults.contains_key(field)));
    }
}

impl RegisteredTask {
    /// Use of the input and the output path.
    pub fn paths(&self) -> Paths {
        self.paths
    }

    /// Default parameters.
    pub fn defaults(&self) -> &Map<String, Value> {
        &self.defaults
    }

    /// JSON Schema of the parameters, including defaults.
    pub fn schema(&self) -> &Value {
        self.schema.document()
    }

    /// Description for users: the doc comment of the task.
    pub fn description(&self) -> &str {
        self.schema()["description"].as_str().unwrap_or_default()
    }

    /// Merges the parameters of a submission over the defaults.
    pub fn merge(&self, given: Map<String, Value>) -> Value {
        let mut merged = self.defaults.clone();
        merged.extend(given);
        Value::Object(merged)
    }

    /// Creates a task from merged parameters.
    ///
    /// # Errors
    /// All faults in the parameters.
    pub fn parse(&self, parameters: &Value) -> Result<Box<dyn Task>, Vec<Fault>> {
        if !self.schema.accepts(parameters) {
            return Err(self.schema.faults(parameters, &[PARAMETERS]));
        }
        let task = (self.deserialize)(parameters).map_err(|error| {
            vec![Fault::value(&[PARAMETERS], error.to_string(), parameters.clone())]
        })?;
        task.validate().map_err(|invalid| {
            let fault = |(field, expected): (&str, &str)| {
                let msg = format!("Input should be {expected}");
                Fault::value(&[PARAMETERS, field], msg, parameters[field].clone())
            };
            invalid.faults().map(fault).collect::<Vec<_>>()
        })?;
        Ok(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(registry: &TaskRegistry, task_type: TaskType) -> &RegisteredTask {
        registry.find(task_type.name()).unwrap().1
    }

    #[test]
    fn every_type_accepts_its_own_defaults() {
        TaskRegistry::builtin().check().unwrap();
        for (task_type, task) in TaskRegistry::builtin().iter() {
            assert!(!task.description().is_empty(), "{} has no description", task_type.name());
        }
    }

    #[test]
    fn a_parameter_may_be_required_and_a_misspelt_default_is_found() {
        let mut registry = TaskRegistry::builtin();
        let with = |registry: &mut TaskRegistry, defaults: Value| {
            registry.replace::<dummy::DummyTask>(TaskType::DummyShort, defaults);
            registry.check().map_err(|error| error.to_string())
        };
        assert_eq!(with(&mut registry, json!({ "steps": 5 })), Ok(()));
        let said = with(&mut registry, json!({ "stepz": 5, "duration": 1 })).unwrap_err();
        assert!(said.contains("`dummy_short`") && said.contains("did you mean `steps`?"), "{said}");
        let said = with(&mut registry, json!({ "steps": "five" })).unwrap_err();
        assert!(said.contains("`steps`: Input should be a whole number"), "{said}");
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let registry = TaskRegistry::builtin();
        let given = json!({ "steps": 5_000_000_000_u64, "duration": "long", "stps": 1 });
        let Err(faults) = get(&registry, TaskType::DummyShort).parse(&given) else {
            panic!("accepted {given}");
        };
        let mut found: Vec<_> =
            faults.iter().map(|fault| (fault.kind, fault.loc[1].as_str().unwrap())).collect();
        found.sort_unstable();
        let expected =
            [("extra_forbidden", "stps"), ("float_type", "duration"), ("less_than_equal", "steps")];
        assert_eq!(found, expected);
        let unknown = faults.iter().find(|fault| fault.kind == "extra_forbidden").unwrap();
        assert_eq!(unknown.msg, "unknown field `stps`, did you mean `steps`?");
    }

    #[test]
    fn a_name_in_another_case_is_no_fault_beside_one() {
        let registry = TaskRegistry::builtin();
        let task = get(&registry, TaskType::ImageProcess);
        let faults = |given: Value| {
            let given = task.merge(given.as_object().unwrap().clone());
            let found = task.parse(&given).err().unwrap_or_default();
            found.into_iter().map(|fault| (fault.kind, fault.msg)).collect::<Vec<_>>()
        };
        assert_eq!(faults(json!({ "format": "jpg" })), []);
        let too_wide =
            ("less_than_equal", "Input should be less than or equal to 65535".to_owned());
        let found = faults(json!({ "format": "Webp", "width": 70_000 }));
        assert_eq!(found, std::slice::from_ref(&too_wide));
        let names = r#""JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF""#;
        let unknown = ("enum", format!("Input should be one of {names}"));
        let mut both = faults(json!({ "format": "HEIC", "width": 70_000 }));
        both.sort_unstable();
        assert_eq!(both, [unknown, too_wide]);
    }

    #[test]
    fn an_unknown_choice_is_answered_with_all_there_are() {
        let registry = TaskRegistry::builtin();
        let task = get(&registry, TaskType::Tokenize);
        let given = json!({ "encoding": "utf-8", "special_tokens": "drop" });
        let Err(faults) = task.parse(&task.merge(given.as_object().cloned().unwrap())) else {
            panic!("accepted {given}");
        };
        let messages: Vec<_> = faults.iter().map(|fault| fault.msg.as_str()).collect();
        let expected = [
            "Input should be one of \"gpt2\", \"r50k_base\", \"p50k_base\", \"p50k_edit\", \
             \"cl100k_base\", \"o200k_base\", \"o200k_harmony\"",
            "Input should be one of \"text\", \"encode\", \"reject\"",
        ];
        assert_eq!(messages, expected);
    }

    #[test]
    fn defaulted_fields_are_not_called_required() {
        let registry = TaskRegistry::builtin();
        let schema = get(&registry, TaskType::DummyLong).schema();
        assert_eq!(schema["required"], json!([]));
        assert_eq!(schema["properties"]["steps"]["default"], json!(10));
    }
}
