//! Checks of submissions: each makes a task that can be stored, or returns all faults.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::store::{Idempotency, NewTask, Retry};
use crate::task::{
    Fault, Files, OutputKind, PathError, PathUse, Paths, Task, TaskId, TaskInfo, Timestamp,
    with_causes,
};
use crate::tasks::{About, RegisteredTask, TaskRegistry};

/// Maximum size of the parameters, in bytes of JSON.
const MAX_PARAMETERS_BYTES: usize = 64 * 1024;
/// Maximum timeout, in seconds: a hundred years.
const MAX_TIMEOUT: f64 = 100.0 * 365.25 * 86_400.0;
/// Maximum length of a path, as in most file systems.
const MAX_PATH_BYTES: usize = 4096;
const MAX_ATTEMPTS: u32 = 1000;
/// Maximum number of tags of a task.
pub(crate) const MAX_TAGS: usize = 16;
/// Maximum lengths of a tag's key and value, in characters.
const MAX_TAG_KEY: usize = 64;
const MAX_TAG_VALUE: usize = 256;

/// A submission, not yet checked.
#[derive(Debug, Default)]
pub(crate) struct Submission {
    pub(crate) task_type: String,
    pub(crate) parameters: Map<String, Value>,
    pub(crate) input_file_path: Option<String>,
    pub(crate) output_file_path: Option<String>,
    pub(crate) priority: i32,
    pub(crate) timeout_seconds: Option<f64>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) tags: BTreeMap<String, String>,
    /// Earliest start.
    pub(crate) run_at: Option<Timestamp>,
    pub(crate) retry: Option<Retry>,
    pub(crate) idempotency: Option<Idempotency>,
}

impl Submission {
    /// The submission of a finished task, for a retry.
    pub(super) fn again(info: TaskInfo, only_first: bool) -> Self {
        // Both were valid when they were stored; rows of other versions fail the checks.
        let parameters = serde_json::from_str(info.parameters.get()).unwrap_or_default();
        let tags = serde_json::from_str(info.tags.get()).unwrap_or_default();
        Self {
            task_type: info.task_type,
            parameters,
            input_file_path: info.input_file_path,
            output_file_path: info.output_file_path,
            priority: info.priority,
            timeout_seconds: info.timeout_seconds,
            max_attempts: Some(info.max_attempts),
            tags,
            run_at: None,
            retry: Some(Retry { of: info.task_id, only_first }),
            idempotency: None,
        }
    }

    /// Does what [`check`](Self::check) does, and also opens the paths, which otherwise happens only when
    /// the task runs. Returns the parameters with defaults.
    pub(super) async fn try_out(
        self,
        registry: &TaskRegistry,
        files: &Arc<Files>,
    ) -> Result<Box<RawValue>, Vec<Fault>> {
        let found = registry.find(&self.task_type);
        let uses = found.map_or(Paths::NONE, |(_, task)| task.paths());
        let (input, output) = (self.input_file_path.clone(), self.output_file_path.clone());
        let checked = self.check(registry, files).await;
        let tried = GivenPaths { input, output }.try_out(uses, files).await;
        match (checked, tried) {
            (Ok(task), Ok(())) => Ok(task.parameters),
            (Ok(_), Err(faults)) | (Err(faults), Ok(())) => Err(faults),
            (Err(mut faults), Err(tried)) => {
                // Both checks may report the same path.
                let known: Vec<_> = faults.iter().map(|fault| fault.loc.clone()).collect();
                faults.extend(tried.into_iter().filter(|fault| !known.contains(&fault.loc)));
                Err(faults)
            }
        }
    }

    /// Returns the task to store, or all faults of the submission.
    pub(super) async fn check(
        self,
        registry: &TaskRegistry,
        files: &Arc<Files>,
    ) -> Result<Box<NewTask>, Vec<Fault>> {
        let mut faults = self.check_limits();
        let found = registry.find(&self.task_type);
        if found.is_none() {
            let names = registry.names().into_iter();
            faults.push(Fault::choice(&["task_type"], "task type", &self.task_type, names));
        }
        let uses = found.as_ref().map_or(Paths::NONE, |(_, registered)| registered.paths());
        let parsed = found.map(|(task_type, registered)| {
            let checked = check_parameters(&registered, self.parameters, &mut faults);
            let About { timeout_seconds, max_attempts, .. } = *registered.about();
            (task_type, checked, (timeout_seconds, max_attempts))
        });
        let paths = GivenPaths { input: self.input_file_path, output: self.output_file_path };
        let missing = paths.missing(uses, &self.task_type);
        let (input, output) = paths.used(uses);
        let mut output_key = None;
        if missing.is_empty() && (input.is_some() || output.is_some()) {
            // Boxed to keep the future of submissions without paths small.
            match Box::pin(check_paths(input, output, uses.output_kind, files)).await {
                Ok(key) => output_key = key,
                Err(found) => faults.extend(found),
            }
        }
        faults.extend(missing);
        let now = Timestamp::now();
        let tags = to_raw_value(&self.tags).expect("strings are JSON");
        match parsed {
            Some((task_type, Some((parameters, code)), (timeout, attempts)))
                if faults.is_empty() =>
            {
                Ok(Box::new(NewTask {
                    id: TaskId::new(),
                    task_type: task_type.name(),
                    parameters,
                    input_file_path: paths.input,
                    output_file_path: paths.output,
                    output_key,
                    priority: self.priority,
                    timeout_seconds: self.timeout_seconds.or(timeout),
                    max_attempts: self.max_attempts.or(attempts).unwrap_or(1),
                    tags,
                    // A past time means now.
                    run_at: self.run_at.filter(|at| *at > now),
                    retry: self.retry,
                    idempotency: self.idempotency,
                    created_at: now,
                    code,
                    reservation: None,
                }))
            }
            _ => Err(faults),
        }
    }

    fn check_limits(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(seconds) = self.timeout_seconds
            && !(seconds > 0.0 && seconds <= MAX_TIMEOUT)
        {
            let msg = format!("Input should be greater than 0 and at most {MAX_TIMEOUT} seconds");
            faults.push(Fault::value(&["timeout_seconds"], msg, seconds));
        }
        if let Some(attempts) = self.max_attempts
            && !(1..=MAX_ATTEMPTS).contains(&attempts)
        {
            let msg = format!("Input should be between 1 and {MAX_ATTEMPTS}");
            faults.push(Fault::value(&["max_attempts"], msg, attempts));
        }
        for (field, path) in [
            ("input_file_path", &self.input_file_path),
            ("output_file_path", &self.output_file_path),
        ] {
            if path.as_ref().is_some_and(|path| path.len() > MAX_PATH_BYTES) {
                let msg = format!("expected a path of at most {MAX_PATH_BYTES} bytes");
                faults.push(Fault::value(&[field], msg, Value::Null));
            }
        }
        if self.tags.len() > MAX_TAGS {
            let msg = format!("at most {MAX_TAGS} tags are allowed, found {}", self.tags.len());
            faults.push(Fault::value(&["tags"], msg, json!(self.tags)));
        }
        for (key, value) in &self.tags {
            let (keys, values) = (1..=MAX_TAG_KEY, 0..=MAX_TAG_VALUE);
            if !keys.contains(&key.chars().count()) || !values.contains(&value.chars().count()) {
                let msg = format!(
                    "expected a key of 1 to {MAX_TAG_KEY} characters and a value of at most \
                     {MAX_TAG_VALUE}"
                );
                faults.push(Fault::value(&["tags", key], msg, value.as_str()));
            }
        }
        faults
    }
}

/// Returns the parameters with defaults, and the task, unless they are invalid.
fn check_parameters(
    registered: &RegisteredTask,
    given: Map<String, Value>,
    faults: &mut Vec<Fault>,
) -> Option<(Box<RawValue>, Box<dyn Task>)> {
    let merged = registered.merge(given);
    let code = registered.parse(&merged).map_err(|found| faults.extend(found)).ok();
    let merged = to_raw_value(&merged).ok()?;
    let bytes = merged.get().len();
    if bytes > MAX_PARAMETERS_BYTES {
        let msg = format!(
            "parameters are {bytes} bytes of JSON, at most {MAX_PARAMETERS_BYTES} are allowed"
        );
        faults.push(Fault::value(&["parameters"], msg, Value::Null));
    }
    Some((merged, code?))
}

struct GivenPaths {
    input: Option<String>,
    output: Option<String>,
}

impl GivenPaths {
    fn missing(&self, uses: Paths, task_type: &str) -> Vec<Fault> {
        let fields = [
            ("input_file_path", uses.input, &self.input),
            ("output_file_path", uses.output, &self.output),
        ];
        let missing = fields
            .into_iter()
            .filter(|(_, needed, given)| *needed == PathUse::Required && given.is_none());
        let missing = missing.map(|(field, ..)| {
            let msg = format!("Field required by task type `{task_type}`");
            Fault::missing(&[field], msg, Value::Null)
        });
        missing.collect()
    }

    /// Input and output, if the task uses them.
    fn used(&self, uses: Paths) -> (Option<String>, Option<String>) {
        let used = |path: &Option<String>, how| path.clone().filter(|_| how != PathUse::Unused);
        (used(&self.input, uses.input), used(&self.output, uses.output))
    }

    /// Opens the input, and checks that the output could be written.
    async fn try_out(&self, uses: Paths, files: &Arc<Files>) -> Result<(), Vec<Fault>> {
        let (input, output) = self.used(uses);
        let files = Arc::clone(files);
        with_files(move |faults| {
            let input = input.and_then(|path| {
                let opened = files.open_input(&path);
                faults.of("input_file_path", &path, opened)
            });
            if let Some(path) = output {
                let bytes = input.and_then(|input| input.metadata().ok()).map_or(0, |it| it.len());
                faults.of(
                    "output_file_path",
                    &path,
                    files.try_output(&path, uses.output_kind, bytes),
                );
            }
        })
        .await
    }
}

/// Checks paths; returns the canonical output, that of a folder with a slash at the end.
async fn check_paths(
    input: Option<String>,
    output: Option<String>,
    kind: OutputKind,
    files: &Arc<Files>,
) -> Result<Option<String>, Vec<Fault>> {
    let files = Arc::clone(files);
    let key = with_files(move |faults| {
        let input =
            input.and_then(|path| faults.of("input_file_path", &path, files.check_input(&path)));
        output.and_then(|path| {
            let checked = files.check_output(&path, kind, input.as_deref());
            faults.of("output_file_path", &path, checked)
        })
    });
    let slash = if kind == OutputKind::Folder { "/" } else { "" };
    Ok(key.await?.map(|key| format!("{}{slash}", key.to_string_lossy())))
}

/// Collects faults of paths.
#[derive(Debug, Default)]
struct PathFaults(Vec<Fault>);

impl PathFaults {
    /// Records an error as a fault of this field.
    fn of<T>(&mut self, field: &str, path: &str, checked: Result<T, PathError>) -> Option<T> {
        let note = |error: &PathError| {
            self.0.push(Fault::value(&[field], with_causes(error), path));
        };
        checked.inspect_err(note).ok()
    }
}

/// Runs `ask` on a blocking thread. Fails if it recorded faults.
async fn with_files<T: Send + 'static>(
    ask: impl FnOnce(&mut PathFaults) -> T + Send + 'static,
) -> Result<T, Vec<Fault>> {
    let asked = tokio::task::spawn_blocking(move || {
        let mut faults = PathFaults::default();
        let answer = ask(&mut faults);
        if faults.0.is_empty() { Ok(answer) } else { Err(faults.0) }
    });
    asked.await.unwrap_or_else(|error| {
        let msg = format!("cannot check the paths: {error}");
        Err(vec![Fault::value(&[], msg, Value::Null)])
    })
}
