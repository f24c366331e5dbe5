//! Task types that are declared by files in the tasks folder: programs in any language, and task classes
//! in Python. A declared type is a task like any other; its task runs a program.

mod command;
mod end;
mod events;
mod folder;
mod lines;
mod load;
mod manifest;
mod python;
mod run;
mod supervisor;
mod template;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use events::MAX_EVENT_BYTES;
pub use folder::{FolderOptions, TasksFolder};
use manifest::{Manifest, Runs};
pub(crate) use python::HELPER as PYTHON_HELPER;
use run::{Place, ProgramTask};
pub(crate) use supervisor::become_subreaper;
pub use supervisor::hidden_verb;
use template::{Placeholder, text_of};

use super::registered::{About, RegisteredTask};
use crate::task::{Fault, Task, TaskContext, TaskError};

/// A declared type that can run.
#[derive(Debug)]
struct Program {
    manifest: Manifest,
    /// The tasks folder.
    folder: PathBuf,
    /// File to lock while processes of its tasks may be alive.
    lock: PathBuf,
    /// For a task class: Python with the helper and the file, as arguments. The file is a copy, so that
    /// a task does not see half of a later change.
    python: Vec<String>,
}

impl Program {
    /// Describes the type. `problem` is what is wrong with a later version of its file.
    fn register(self: &Arc<Self>, problem: Option<String>) -> RegisteredTask {
        let Manifest { paths, parameters, schema, version, cpus, limit, defaults, .. } =
            &self.manifest;
        let about = About {
            version: version.clone(),
            problem,
            cpus: *cpus,
            limit: *limit,
            programs: self.programs(),
            timeout_seconds: defaults.timeout_seconds,
            max_attempts: defaults.max_attempts,
        };
        let program = Arc::clone(self);
        let make = move |parameters: &Value| program.task(parameters);
        RegisteredTask::declared(*paths, parameters.clone(), Arc::clone(schema), about, make)
    }

    /// Makes a task from parameters that match the schema.
    fn task(self: &Arc<Self>, parameters: &Value) -> Result<Box<dyn Task>, Vec<Fault>> {
        if let Runs::Command(templates) = &self.manifest.runs {
            let faults = templates.iter().filter_map(|template| template.fault(parameters));
            let faults: Vec<_> = faults.collect();
            if !faults.is_empty() {
                return Err(faults);
            }
        }
        let parameters = parameters.clone();
        Ok(Box::new(ProgramTask { program: Arc::clone(self), parameters }))
    }

    /// The program and its arguments.
    fn arguments(
        &self,
        ctx: &TaskContext,
        parameters: &Value,
        place: &Place,
    ) -> Result<Vec<OsString>, TaskError> {
        let Runs::Command(templates) = &self.manifest.runs else {
            return Ok(self.python.iter().map(OsString::from).collect());
        };
        let path = |path: &Option<PathBuf>| Some(path.as_ref()?.to_string_lossy().into_owned());
        let value = |placeholder: &Placeholder| match placeholder {
            Placeholder::Folder => Some(self.folder.to_string_lossy().into_owned()),
            Placeholder::Input => path(&place.input),
            Placeholder::Output => path(&place.output),
            Placeholder::TaskId => Some(ctx.task_info().task_id.to_string()),
            Placeholder::Attempt => Some(ctx.task_info().attempt.to_string()),
            Placeholder::Cpus => Some(self.manifest.cpus.to_string()),
            Placeholder::Parameter(name) => text_of(&parameters[name]),
        };
        let filled: Vec<_> = templates.iter().filter_map(|template| template.fill(value)).collect();
        let [program, arguments @ ..] = &filled[..] else {
            return Err(TaskError::permanent("the command has no program"));
        };
        let path = self.manifest.env.get("PATH").map(String::as_str);
        let program = command::find(program, path).map_err(TaskError::failed)?;
        let arguments = arguments.iter().map(OsString::from);
        Ok(std::iter::once(program.into_os_string()).chain(arguments).collect())
    }

    /// The program, and the files among its arguments that do not depend on the task.
    fn programs(&self) -> Vec<PathBuf> {
        let Runs::Command(templates) = &self.manifest.runs else { return Vec::new() };
        let in_folder = |placeholder: &Placeholder| match placeholder {
            Placeholder::Folder => Some(self.folder.to_string_lossy().into_owned()),
            _ => None,
        };
        let path = self.manifest.env.get("PATH").map(String::as_str);
        let filled: Vec<_> = templates.iter().map(|template| template.fill(in_folder)).collect();
        let program = filled.first().cloned().flatten();
        let program = program.and_then(|program| command::find(&program, path).ok());
        let arguments = filled.into_iter().skip(1).flatten().map(PathBuf::from);
        let files = program.into_iter().chain(arguments.filter(|path| path.is_absolute()));
        files.filter_map(|path| path.canonicalize().ok()).filter(|path| path.is_file()).collect()
    }

    fn environment(&self) -> BTreeMap<OsString, OsString> {
        let Manifest { pass_env, env, cpus, .. } = &self.manifest;
        command::environment(pass_env, env, *cpus)
    }
}
