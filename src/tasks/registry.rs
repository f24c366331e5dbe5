//! Maps each task type to its code and its default parameters.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::registered::{RegisteredTask, entry};
use super::*;
use crate::task::{Fault, Task, TaskType};

/// A type and its task.
pub type TypeEntry = (TaskType, Arc<RegisteredTask>);

/// Task types and the task that runs for each: the one place that knows which types there are.
///
/// Built-in types never change. Declared ones are replaced as a whole by whoever follows the tasks
/// folder, and read by everybody.
#[derive(Debug)]
pub struct TaskRegistry {
    builtin: Vec<TypeEntry>,
    declared: RwLock<Vec<TypeEntry>>,
}

impl TaskRegistry {
    /// The built-in tasks.
    pub fn builtin() -> Self {
        let entry = |task_type| Some((task_type, Arc::new(register(task_type)?)));
        let builtin = TaskType::builtin().filter_map(entry).collect();
        Self { builtin, declared: RwLock::default() }
    }

    /// A type by its name on the wire, if there is one.
    pub fn find(&self, name: &str) -> Option<TypeEntry> {
        let named = |(task_type, _): &&TypeEntry| task_type.name() == name;
        let builtin = self.builtin.iter().find(named).cloned();
        builtin.or_else(|| self.declared.read().iter().find(named).cloned())
    }

    /// All types, in the order in which they are listed to users.
    pub fn types(&self) -> Vec<TypeEntry> {
        let declared = self.declared.read();
        let named = |name: &str| declared.iter().find(|(other, _)| other.name() == name);
        // A file that takes a built-in name is shown as a problem of that type.
        let builtin = self.builtin.iter().map(|(task_type, task)| match named(task_type.name()) {
            Some((_, taking)) => {
                let problem = taking.about().problem.clone();
                (*task_type, Arc::new(task.with_problem(problem)))
            }
            None => (*task_type, Arc::clone(task)),
        });
        let others =
            declared.iter().filter(|(name, _)| TaskType::builtin_named(name.name()).is_none());
        builtin.chain(others.cloned()).collect()
    }

    /// The names of all types, in that order.
    pub fn names(&self) -> Vec<&'static str> {
        self.types().iter().map(|(task_type, _)| task_type.name()).collect()
    }

    /// Programs and scripts that tasks run.
    pub fn programs(&self) -> Vec<PathBuf> {
        let declared = self.declared.read();
        declared.iter().flat_map(|(_, task)| task.about().programs.clone()).collect()
    }

    /// Replaces the declared types. Returns the names of those that are new, changed or gone.
    pub fn set_declared(&self, types: Vec<TypeEntry>) -> Vec<&'static str> {
        let mut declared = self.declared.write();
        let is_in = |types: &[TypeEntry], (name, task): &TypeEntry| {
            types.iter().any(|(other, same)| other == name && Arc::ptr_eq(task, same))
        };
        let new = types.iter().filter(|entry| !is_in(&declared, entry));
        let gone = declared.iter().filter(|entry| !is_in(&types, entry));
        let changed = new.chain(gone).map(|(task_type, _)| task_type.name()).collect();
        *declared = types;
        changed
    }

    /// Checks that all tasks accept their default parameters. Required parameters need no default.
    ///
    /// # Errors
    /// All faults in the defaults of one type.
    pub fn check(&self) -> Result<(), InvalidDefaults> {
        for (task_type, task) in &self.builtin {
            let faults = task.faults_in_defaults();
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
        let replaced = Arc::new(entry::<T>(defaults));
        match self.builtin.iter_mut().find(|(known, _)| *known == task_type) {
            Some((_, task)) => *task = replaced,
            None => self.builtin.push((task_type, replaced)),
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

/// Code and default parameters, one line per type.
#[rustfmt::skip]
fn register(task_type: TaskType) -> Option<RegisteredTask> {
    Some(match task_type {
        TaskType::DummyShort => entry::<dummy::DummyTask>(json!({ "duration": 5, "steps": 5 })),
        TaskType::DummyLong => entry::<dummy::DummyTask>(json!({ "duration": 30, "steps": 10 })),
        TaskType::DummyVeryLong => entry::<dummy::DummyTask>(json!({ "duration": 120, "steps": 20 })),
        TaskType::Tokenize => entry::<tokenize::TokenizeTask>(json!({ "encoding": "cl100k_base", "sleep_duration": 60, "special_tokens": "text" })),
        TaskType::ImageProcess => entry::<image_process::ImageProcessTask>(json!({ "width": 800, "height": 600, "format": null, "quality": 85, "fit": "stretch" })),
        TaskType::Declared(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(registry: &TaskRegistry, task_type: TaskType) -> Arc<RegisteredTask> {
        registry.find(task_type.name()).unwrap().1
    }

    #[test]
    fn every_type_accepts_its_own_defaults() {
        TaskRegistry::builtin().check().unwrap();
        for (task_type, task) in TaskRegistry::builtin().types() {
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
        let task = get(&registry, TaskType::DummyLong);
        let schema = task.schema();
        assert_eq!(schema["required"], json!([]));
        assert_eq!(schema["properties"]["steps"]["default"], json!(10));
    }
}
