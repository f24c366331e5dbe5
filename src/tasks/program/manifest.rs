//! Manifests: the TOML that declares a task type. Every mistake is found when the file is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::template::{Names, Template};
use super::values;
use crate::task::{CompiledSchema, OutputKind, PathUse, Paths, expected_names};

/// Default time between SIGTERM and SIGKILL.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Keys of a manifest and of its tables.
const KEYS: [&str; 19] = [
    "description",
    "version",
    "command",
    "python",
    "interpreter",
    "input",
    "output",
    "output_kind",
    "env",
    "pass_env",
    "progress",
    "exit",
    "grace",
    "cpus",
    "memory",
    "limit",
    "max_running_per_node",
    "defaults",
    "parameters",
];
const TABLES: [(&str, &[&str]); 3] = [
    ("progress", &["stream", "regex"]),
    ("exit", &["permanent"]),
    ("defaults", &["timeout_seconds", "max_attempts"]),
];

/// A manifest as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Written {
    description: String,
    version: Option<String>,
    command: Vec<String>,
    python: Option<String>,
    interpreter: Option<String>,
    input: Option<PathUse>,
    output: Option<PathUse>,
    output_kind: OutputKind,
    env: BTreeMap<String, String>,
    pass_env: Vec<String>,
    progress: Option<WrittenProgress>,
    exit: WrittenExit,
    grace: Option<String>,
    cpus: Option<usize>,
    memory: Option<String>,
    limit: Option<usize>,
    max_running_per_node: Option<usize>,
    defaults: Defaults,
    parameters: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct WrittenProgress {
    stream: Stream,
    regex: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WrittenExit {
    permanent: Vec<i32>,
}

/// Values for submissions that name none.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Defaults {
    pub(super) timeout_seconds: Option<f64>,
    pub(super) max_attempts: Option<u32>,
}

/// An output stream of a program.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// A checked manifest.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) version: Option<String>,
    pub(super) runs: Runs,
    pub(super) paths: Paths,
    pub(super) env: BTreeMap<String, String>,
    pub(super) pass_env: Vec<String>,
    /// Where progress is read from, and the pattern whose first group is the percentage.
    pub(super) progress: Option<(Stream, Regex)>,
    /// Exit codes after which no further attempt helps.
    pub(super) permanent: Vec<i32>,
    pub(super) grace: Duration,
    pub(super) cpus: usize,
    /// In bytes.
    pub(super) memory: Option<u64>,
    pub(super) limit: Option<usize>,
    pub(super) defaults: Defaults,
    pub(super) schema: Arc<CompiledSchema>,
    /// Default values of parameters.
    pub(super) parameters: Map<String, Value>,
}

/// What a manifest runs.
#[derive(Debug)]
pub(super) enum Runs {
    /// A program with its arguments.
    Command(Vec<Template>),
    /// A task class in a Python file beside the manifest.
    Python { file: String, interpreter: Option<String> },
}

impl Manifest {
    /// Reads the text of a manifest.
    ///
    /// # Errors
    /// The first mistake, with its line where that is known.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::read(text, None)
    }

    /// Reads the manifest in the script metadata of a class file.
    pub(super) fn of_class(text: &str, file: &str) -> Result<Self, String> {
        Self::read(text, Some(file))
    }

    fn read(text: &str, class: Option<&str>) -> Result<Self, String> {
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| in_line(text, &error))?;
        check_keys(&table)?;
        let mut written: Written = toml::from_str(text).map_err(|error| in_line(text, &error))?;
        if let Some(file) = class {
            written.python.get_or_insert_with(|| file.to_owned());
        }
        if written.python.is_some() {
            // A class does not say which paths it uses.
            written.input.get_or_insert(PathUse::Optional);
            written.output.get_or_insert(PathUse::Optional);
        }
        written.check()
    }

    /// Takes this description unless the manifest has its own.
    pub(super) fn described_by(mut self, description: Option<&str>) -> Self {
        let mut schema = self.schema.document().clone();
        if let (Some(text), Some("")) = (description, schema["description"].as_str()) {
            schema["description"] = text.into();
            let schema = CompiledSchema::new(schema).expect("only a text was changed");
            self.schema = Arc::new(schema);
        }
        self
    }
}

impl Written {
    fn check(self) -> Result<Manifest, String> {
        let of = |path: Option<PathUse>| path.unwrap_or(PathUse::Unused);
        let paths =
            Paths { input: of(self.input), output: of(self.output), output_kind: self.output_kind };
        let any = self.parameters.is_none() && self.python.is_some();
        let properties = self.parameters.unwrap_or_default();
        let names: Vec<_> = properties.keys().cloned().collect();
        let names = Names {
            input: paths.input != PathUse::Unused,
            output: paths.output != PathUse::Unused,
            parameters: &names,
        };
        let runs = match (self.python, self.command) {
            (Some(_), command) if !command.is_empty() => {
                return Err("both `command` and `python` are given: expected one".to_owned());
            }
            (Some(file), _) => Runs::Python { file, interpreter: self.interpreter },
            (None, command) if command.is_empty() => {
                let expected =
                    "expected a program and its arguments, such as [\"Rscript\", \"a.R\"]";
                return Err(format!("`command` is missing: {expected}"));
            }
            (None, command) => {
                let parts = command.iter().map(|text| Template::parse(text, names));
                Runs::Command(parts.collect::<Result<_, _>>()?)
            }
        };
        let schema = schema(self.description.trim(), &properties, any);
        let schema = CompiledSchema::new(schema).map_err(|error| format!("parameters: {error}"))?;
        let progress = self.progress.map(WrittenProgress::compile).transpose()?;
        let grace = self.grace.as_deref().map(values::duration).transpose();
        let memory = self.memory.as_deref().map(values::bytes).transpose();
        let manifest = Manifest {
            version: self.version,
            runs,
            paths,
            env: self.env,
            pass_env: self.pass_env,
            progress,
            permanent: self.exit.permanent,
            grace: grace.map_err(|error| format!("grace: {error}"))?.unwrap_or(DEFAULT_GRACE),
            cpus: at_least_one("cpus", self.cpus)?.unwrap_or(1),
            memory: memory.map_err(|error| format!("memory: {error}"))?,
            limit: [
                at_least_one("limit", self.limit)?,
                at_least_one("max_running_per_node", self.max_running_per_node)?,
            ]
            .into_iter()
            .flatten()
            .min(),
            defaults: self.defaults.check()?,
            schema: Arc::new(schema),
            parameters: defaults(&properties),
        };
        manifest.check_environment()?;
        Ok(manifest)
    }
}

impl WrittenProgress {
    fn compile(self) -> Result<(Stream, Regex), String> {
        let regex = Regex::new(&self.regex).map_err(|error| format!("progress.regex: {error}"))?;
        if regex.captures_len() < 2 {
            let text = &self.regex;
            return Err(format!(
                "progress.regex: expected a group around the percentage, such as (\\d+)%, found `{text}`"
            ));
        }
        Ok((self.stream, regex))
    }
}

impl Defaults {
    fn check(self) -> Result<Self, String> {
        if let Some(seconds) = self.timeout_seconds
            && !(seconds > 0.0 && seconds.is_finite())
        {
            return Err(format!("defaults.timeout_seconds: expected more than 0, found {seconds}"));
        }
        match self.max_attempts {
            Some(attempts) if !(1..=1000).contains(&attempts) => {
                Err(format!("defaults.max_attempts: expected 1 to 1000, found {attempts}"))
            }
            _ => Ok(self),
        }
    }
}

impl Manifest {
    fn check_environment(&self) -> Result<(), String> {
        let wrong = |name: &String| name.is_empty() || name.contains(['=', '\0']);
        let mut names = self.env.keys().chain(&self.pass_env);
        if let Some(name) = names.find(|name| wrong(name)) {
            return Err(format!("invalid name of an environment variable: `{name}`"));
        }
        match self.env.iter().find(|(_, value)| value.contains('\0')) {
            Some((name, _)) => Err(format!("env.{name}: a value cannot contain a NUL character")),
            None => Ok(()),
        }
    }
}

fn at_least_one(key: &str, given: Option<usize>) -> Result<Option<usize>, String> {
    match given {
        Some(0) => Err(format!("{key}: expected at least 1, found 0")),
        given => Ok(given),
    }
}

/// JSON Schema of an object with these properties. Those without a default are required.
fn schema(description: &str, properties: &Map<String, Value>, any: bool) -> Value {
    let required: Vec<_> = properties
        .iter()
        .filter(|(_, property)| property.get("default").is_none())
        .map(|(name, _)| name.clone())
        .collect();
    json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": any,
    })
}

fn defaults(properties: &Map<String, Value>) -> Map<String, Value> {
    let default = |(name, property): (&String, &Value)| {
        Some((name.clone(), property.get("default")?.clone()))
    };
    properties.iter().filter_map(default).collect()
}

/// Rejects unknown keys and suggests the closest one.
fn check_keys(manifest: &toml::Table) -> Result<(), String> {
    let unknown = |table: &toml::Table, known: &[&str], prefix: &str| {
        let name = table.keys().find(|name| !known.contains(&name.as_str()))?;
        let expected = expected_names(name, known.iter().copied());
        Some(format!("unknown key `{prefix}{name}`, {expected}"))
    };
    if let Some(problem) = unknown(manifest, &KEYS, "") {
        return Err(problem);
    }
    for (name, known) in TABLES {
        if let Some(table) = manifest.get(name).and_then(toml::Value::as_table)
            && let Some(problem) = unknown(table, known, &format!("{name}."))
        {
            return Err(problem);
        }
    }
    Ok(())
}

/// Message of a TOML error, with its line.
fn in_line(text: &str, error: &toml::de::Error) -> String {
    match error.span() {
        Some(span) => {
            let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
            format!("line {line}: {}", error.message())
        }
        None => error.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: &str = r#"
description = "Segments cells."
version = "1.2"
command = ["segment", "--channel={parameters.channel}", "{input}", "{output}"]
input = "required"
output = "required"
output_kind = "folder"
env = { MODEL_DIR = "/data/models" }
pass_env = ["HTTPS_PROXY"]
progress = { stream = "stderr", regex = '(\d+)%' }
exit = { permanent = [64, 65] }
grace = "20s"
cpus = 4
memory = "8G"
limit = 2
max_running_per_node = 1
[defaults]
timeout_seconds = 3600
max_attempts = 2
[parameters.channel]
type = "integer"
minimum = 0
default = 0
[parameters.name]
type = "string"
"#;

    #[test]
    fn every_key_has_its_effect() {
        let manifest = Manifest::parse(SEGMENT).unwrap();
        assert_eq!(manifest.version.as_deref(), Some("1.2"));
        assert_eq!(manifest.paths.input, PathUse::Required);
        assert_eq!(manifest.paths.output_kind, OutputKind::Folder);
        assert_eq!((manifest.cpus, manifest.memory, manifest.limit), (4, Some(8 << 30), Some(1)));
        assert_eq!(manifest.grace, Duration::from_secs(20));
        assert_eq!(manifest.permanent, [64, 65]);
        let defaults = Defaults { timeout_seconds: Some(3600.0), max_attempts: Some(2) };
        assert_eq!(manifest.defaults, defaults);
        let schema = manifest.schema.document();
        assert_eq!(schema["description"], "Segments cells.");
        assert_eq!(schema["required"], json!(["name"]));
        assert_eq!(Value::Object(manifest.parameters), json!({ "channel": 0 }));
        let faults = manifest.schema.faults(&json!({ "chanel": 1, "name": "a" }), &["parameters"]);
        assert_eq!(faults[0].msg, "unknown field `chanel`, did you mean `channel`?");
    }

    #[test]
    fn every_mistake_is_named() {
        let mistakes = [
            ("comand = []", "unknown key `comand`, did you mean `command`?"),
            ("command = [\"a\"]\nexit = { permanant = [1] }", "did you mean `permanent`?"),
            ("command = \"ls -l\"", "line 1: invalid type: string"),
            ("", "`command` is missing"),
            ("command = [\"a\"]\npython = \"a.py\"", "both `command` and `python`"),
            ("command = [\"a\", \"{inptu}\"]", "unknown placeholder `{inptu}`"),
            ("command = [\"a\"]\ncpus = 0", "cpus: expected at least 1"),
            ("command = [\"a\"]\ncpus = -1", "line 2: invalid value"),
            ("command = [\"a\"]\nmemory = \"8 GB\"", "memory: invalid size `8 GB`"),
            ("command = [\"a\"]\ngrace = \"10\"", "grace: invalid duration `10`"),
            ("command = [\"a\"]\ninput = \"maybe\"", "line 2: unknown variant `maybe`"),
            (
                "command = [\"a\"]\nprogress = { stream = \"stderr\", regex = '(' }",
                "progress.regex: regex parse error",
            ),
            (
                "command = [\"a\"]\nprogress = { stream = \"stderr\", regex = '%' }",
                "expected a group around the percentage",
            ),
            ("command = [\"a\"]\nparameters.n.type = \"integr\"", "parameters: "),
            ("command = [\"a\"]\nparameters.n.pattern = \"(\"", "parameters: "),
            (
                "command = [\"a\"]\ndefaults.max_attempts = 0",
                "defaults.max_attempts: expected 1 to",
            ),
            ("command = [\"a\"]\nenv = { \"A=B\" = \"c\" }", "invalid name of an environment"),
            ("command = [", "line 1: "),
        ];
        for (text, expected) in mistakes {
            let said = Manifest::parse(text).unwrap_err();
            assert!(said.contains(expected), "{text}\n{said}");
        }
    }

    #[test]
    fn a_python_file_without_a_manifest_takes_any_parameters_and_paths() {
        let manifest = Manifest::of_class("", "my_task.py").unwrap();
        let manifest = manifest.described_by(Some("Does a thing."));
        assert_eq!(manifest.paths.output, PathUse::Optional);
        assert_eq!(manifest.schema.document()["description"], "Does a thing.");
        assert!(manifest.schema.accepts(&json!({ "anything": [1] })));
    }
}
