//! What the registry knows of a task type: its code, its parameters and its limits.

use std::any::type_name;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::task::{CompiledSchema, Fault, Paths, Task, schema_of};

/// Field of a submission that holds the parameters.
const PARAMETERS: &str = "parameters";

/// A task type's code and its description.
#[derive(Clone, Debug)]
pub struct RegisteredTask {
    paths: Paths,
    defaults: Map<String, Value>,
    schema: Arc<CompiledSchema>,
    code: Option<Code>,
    about: About,
}

/// Makes a task from parameters that match the schema.
type Make = dyn Fn(&Value) -> Result<Box<dyn Task>, Vec<Fault>> + Send + Sync;

#[derive(Clone)]
struct Code(Arc<Make>);

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code")
    }
}

/// Further properties of a task type, most of them set only by declared types.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Version of the code, as its author calls it.
    pub version: Option<String>,
    /// What is wrong with the file that declares the type. The type still works if an earlier version of
    /// the file did.
    pub problem: Option<String>,
    /// CPU slots that a task takes while it runs; 0 if it takes them as it needs them.
    pub cpus: usize,
    /// Number of tasks that may run at once, besides the server's own limits.
    pub limit: Option<usize>,
    /// Programs and scripts that its tasks run, as canonical paths.
    pub programs: Vec<PathBuf>,
    /// Timeout of submissions that name none.
    pub timeout_seconds: Option<f64>,
    /// Number of attempts of submissions that name none.
    pub max_attempts: Option<u32>,
}

pub(super) fn entry<T: Task + DeserializeOwned + JsonSchema>(defaults: Value) -> RegisteredTask {
    let Value::Object(defaults) = defaults else {
        panic!("invalid default parameters of {}: expected a JSON object", type_name::<T>());
    };
    let mut schema = schema_of::<T>();
    publish_defaults(&mut schema, &defaults);
    RegisteredTask {
        paths: T::paths(),
        defaults,
        schema: Arc::new(CompiledSchema::new(schema).expect("schemars makes valid schemas")),
        code: Some(Code(Arc::new(|parameters: &Value| parse::<T>(parameters)))),
        about: About::default(),
    }
}

/// Makes a Rust task from parameters that match its schema.
fn parse<T: Task + DeserializeOwned>(parameters: &Value) -> Result<Box<dyn Task>, Vec<Fault>> {
    let task = T::deserialize(parameters).map_err(|error| {
        vec![Fault::value(&[PARAMETERS], error.to_string(), parameters.clone())]
    })?;
    task.validate().map_err(|invalid| {
        let fault = |(field, expected): (&str, &str)| {
            let msg = format!("Input should be {expected}");
            Fault::value(&[PARAMETERS, field], msg, parameters[field].clone())
        };
        invalid.faults().map(fault).collect::<Vec<_>>()
    })?;
    Ok(Box::new(task))
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
    /// A type that is declared at run time. `make` gets parameters that match the schema.
    pub(super) fn declared(
        paths: Paths,
        defaults: Map<String, Value>,
        schema: Arc<CompiledSchema>,
        about: About,
        make: impl Fn(&Value) -> Result<Box<dyn Task>, Vec<Fault>> + Send + Sync + 'static,
    ) -> Self {
        Self { paths, defaults, schema, code: Some(Code(Arc::new(make))), about }
    }

    /// A type whose file has never worked. Submissions are refused with the problem.
    pub(super) fn broken(problem: String) -> Self {
        let schema = serde_json::json!({ "type": "object" });
        Self {
            paths: Paths::NONE,
            defaults: Map::new(),
            schema: Arc::new(CompiledSchema::new(schema).expect("a valid schema")),
            code: None,
            about: About { problem: Some(problem), ..About::default() },
        }
    }

    /// The same type with this problem.
    pub(super) fn with_problem(&self, problem: Option<String>) -> Self {
        Self { about: About { problem, ..self.about.clone() }, ..self.clone() }
    }

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

    /// Further properties.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Whether tasks of this type can run.
    pub fn is_runnable(&self) -> bool {
        self.code.is_some()
    }

    /// Merges the parameters of a submission over the defaults.
    pub fn merge(&self, given: Map<String, Value>) -> Value {
        let mut merged = self.defaults.clone();
        merged.extend(given);
        Value::Object(merged)
    }

    /// Faults in the default parameters. Those that are required need no default.
    pub(super) fn faults_in_defaults(&self) -> Vec<Fault> {
        let mut faults = self.parse(&self.merge(Map::new())).err().unwrap_or_default();
        faults.retain(|fault| fault.kind != "missing");
        faults
    }

    /// Creates a task from merged parameters.
    ///
    /// # Errors
    /// All faults in the parameters, or the problem of a type that cannot run.
    pub fn parse(&self, parameters: &Value) -> Result<Box<dyn Task>, Vec<Fault>> {
        let Some(Code(make)) = &self.code else {
            let problem = self.about.problem.clone().unwrap_or_default();
            let msg = format!("this task type cannot run: {problem}");
            return Err(vec![Fault::value(&["task_type"], msg, Value::Null)]);
        };
        if !self.schema.accepts(parameters) {
            return Err(self.schema.faults(parameters, &[PARAMETERS]));
        }
        make(parameters)
    }
}
