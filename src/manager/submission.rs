//! Checks a submission and makes it a task that can be stored. Names every fault it finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use super::Shared;
use crate::store::{Idempotency, NewTask};
use crate::task::{Fault, Files, PathUse, Paths, TaskId, TaskType, Timestamp};
use crate::tasks::RegisteredTask;

/// The largest parameters that are stored, in bytes of JSON.
const MAX_PARAMETERS_BYTES: usize = 64 * 1024;
/// The longest timeout, in seconds: a hundred years.
const MAX_TIMEOUT: f64 = 100.0 * 365.25 * 86_400.0;
const MAX_ATTEMPTS: u32 = 1000;
const MAX_TAGS: usize = 16;
/// In characters.
const MAX_TAG_KEY: usize = 64;
/// In characters.
const MAX_TAG_VALUE: usize = 256;

/// What a client asks for.
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
    /// Not before this time.
    pub(crate) run_at: Option<Timestamp>,
    /// The task that this one repeats.
    pub(crate) retry_of: Option<TaskId>,
    pub(crate) idempotency: Option<Idempotency>,
}

impl Submission {
    /// The task to store, or all that is wrong with the submission.
    pub(super) async fn check(self, shared: &Shared) -> Result<NewTask, Vec<Fault>> {
        let mut faults = self.check_limits();
        let parsed = match TaskType::from_name(&self.task_type) {
            Some(task_type) => {
                let registered = shared.registry.get(task_type);
                let parameters = check_parameters(registered, self.parameters, &mut faults);
                Some((task_type, registered.paths(), parameters))
            }
            None => {
                let names = TaskType::ALL.iter().map(|task_type| task_type.name());
                let loc = ["body", "task_type"];
                faults.push(Fault::choice(&loc, "task type", &self.task_type, names));
                None
            }
        };
        let uses = parsed.as_ref().map_or(Paths::NONE, |(_, paths, _)| *paths);
        let paths = GivenPaths { input: self.input_file_path, output: self.output_file_path };
        let output_key = match paths.missing(uses, &self.task_type) {
            missing if !missing.is_empty() => {
                faults.extend(missing);
                None
            }
            _ => paths.check(uses, &shared.files).await.unwrap_or_else(|found| {
                faults.extend(found);
                None
            }),
        };
        let now = Timestamp::now();
        match parsed {
            Some((task_type, _, Some(parameters))) if faults.is_empty() => Ok(NewTask {
                id: TaskId::new(),
                task_type: task_type.name(),
                parameters,
                input_file_path: paths.input,
                output_file_path: paths.output,
                output_key,
                priority: self.priority,
                timeout_seconds: self.timeout_seconds,
                max_attempts: self.max_attempts.unwrap_or(1),
                tags: self.tags,
                // The past means now.
                run_at: self.run_at.filter(|at| *at > now),
                retry_of: self.retry_of,
                idempotency: self.idempotency,
                created_at: now,
            }),
            _ => Err(faults),
        }
    }

    fn check_limits(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(seconds) = self.timeout_seconds
            && !(seconds > 0.0 && seconds <= MAX_TIMEOUT)
        {
            let msg = format!("Input should be greater than 0 and at most {MAX_TIMEOUT} seconds");
            faults.push(Fault::value(&["body", "timeout_seconds"], msg, seconds));
        }
        if let Some(attempts) = self.max_attempts
            && !(1..=MAX_ATTEMPTS).contains(&attempts)
        {
            let msg = format!("Input should be between 1 and {MAX_ATTEMPTS}");
            faults.push(Fault::value(&["body", "max_attempts"], msg, attempts));
        }
        if self.tags.len() > MAX_TAGS {
            let msg = format!("at most {MAX_TAGS} tags are allowed, found {}", self.tags.len());
            faults.push(Fault::value(&["body", "tags"], msg, json!(self.tags)));
        }
        for (key, value) in &self.tags {
            let (keys, values) = (1..=MAX_TAG_KEY, 0..=MAX_TAG_VALUE);
            if !keys.contains(&key.chars().count()) || !values.contains(&value.chars().count()) {
                let msg = format!(
                    "expected a key of 1 to {MAX_TAG_KEY} characters and a value of at most \
                     {MAX_TAG_VALUE}"
                );
                faults.push(Fault::value(&["body", "tags", key], msg, value.as_str()));
            }
        }
        faults
    }
}

/// The merged parameters, if the task can be made from them.
fn check_parameters(
    registered: &RegisteredTask,
    given: Map<String, Value>,
    faults: &mut Vec<Fault>,
) -> Option<Box<RawValue>> {
    let merged = registered.merge(given);
    if let Err(found) = registered.parse(&merged) {
        faults.extend(found);
    }
    let merged = to_raw_value(&merged).ok()?;
    let bytes = merged.get().len();
    if bytes > MAX_PARAMETERS_BYTES {
        let msg = format!(
            "parameters are {bytes} bytes of JSON, at most {MAX_PARAMETERS_BYTES} are allowed"
        );
        faults.push(Fault::value(&["body", "parameters"], msg, Value::Null));
    }
    Some(merged)
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
        missing
            .map(|(field, ..)| {
                let msg = format!("Field required by task type `{task_type}`");
                Fault::missing(&["body", field], msg, json!(null))
            })
            .collect()
    }

    /// Checks the paths that the task uses; returns the output in its one spelling. Off the async
    /// threads, because it asks the file system.
    async fn check(&self, uses: Paths, files: &Arc<Files>) -> Result<Option<String>, Vec<Fault>> {
        let used = |path: &Option<String>, how| path.clone().filter(|_| how != PathUse::Unused);
        let input = used(&self.input, uses.input);
        let output = used(&self.output, uses.output);
        if input.is_none() && output.is_none() {
            return Ok(None);
        }
        let files = Arc::clone(files);
        let checked = tokio::task::spawn_blocking(move || {
            let mut faults = Vec::new();
            let mut fault = |field, error: crate::task::PathError, path: &str| {
                let msg = crate::task::with_causes(&error);
                faults.push(Fault::value(&["body", field], msg, path));
            };
            let input = input.and_then(|path| {
                let checked = files.check_input(&path);
                checked.map_err(|error| fault("input_file_path", error, &path)).ok()
            });
            let key = output.and_then(|path| {
                let checked = files.check_output(&path, input.as_deref());
                checked.map_err(|error| fault("output_file_path", error, &path)).ok()
            });
            if faults.is_empty() { Ok(key) } else { Err(faults) }
        });
        let key = checked.await.unwrap_or_else(|error| {
            let msg = format!("the paths could not be checked: {error}");
            Err(vec![Fault::value(&["body"], msg, Value::Null)])
        })?;
        Ok(key.map(|key| key.to_string_lossy().into_owned()))
    }
}
