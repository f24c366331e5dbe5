//! The ground floor: what a task is, and all that its code may lean on.
//!
//! A task is a struct that **is** its parameters: serde parses it, schemars describes it, and
//! [`Task::execute`] does the work with the help of a [`TaskContext`].

mod blocking;
mod context;
mod error;
mod fault;
mod files;
mod info;
mod memory;
mod output;
mod parallel;
mod progress;
mod schema;
#[cfg(test)]
pub(crate) mod testing;
mod types;

pub use async_trait::async_trait;
pub use blocking::CpuSlots;
pub(crate) use blocking::{BlockingWork, SlotWait};
pub(crate) use context::Attempt;
pub use context::TaskContext;
pub(crate) use error::with_causes;
pub use error::{InvalidParameters, TaskError};
pub use fault::Fault;
pub(crate) use fault::{MAX_FAULTS, expected_names};
pub(crate) use files::machine;
pub use files::{Files, FilesError, PathError};
pub(crate) use info::new_uuid;
pub use info::{TaskId, TaskInfo, TaskStatus, Timestamp};
pub(crate) use memory::MemoryBudget;
pub use memory::{MEMORY_BUDGET, ReservedMemory};
pub use output::OutputFile;
pub(crate) use progress::{Progress, shorten};
pub(crate) use schema::{CompiledSchema, schema_of};
pub use types::TaskType;

/// What a task returns: a JSON object for `result`, or why it did not get there.
pub type TaskResult = Result<serde_json::Value, TaskError>;

/// Work that the server can run.
///
/// The implementing struct holds the task's parameters, so it derives `serde::Deserialize` and
/// `schemars::JsonSchema` beside this. Its doc comment is what users read about the task type.
#[async_trait]
pub trait Task: Send + Sync + 'static {
    /// Which of the two paths of a submission this task uses. By default neither.
    fn paths() -> Paths
    where
        Self: Sized,
    {
        Paths::NONE
    }

    /// Checks what neither the types of the fields nor their schema can say, such as that one field fits
    /// another. Called before a task is accepted, and only for parameters that the schema accepts.
    ///
    /// # Errors
    /// Every fault that was found, not just the first.
    fn validate(&self) -> Result<(), InvalidParameters> {
        Ok(())
    }

    /// Does the work. The future is dropped at its next await when the task is cancelled or runs
    /// out of time; what has to be tidied up then belongs in `Drop`.
    ///
    /// # Errors
    /// Any error makes the task `failed` (or tries again where attempts are left), and its text
    /// becomes the task's `error`.
    async fn execute(self: Box<Self>, ctx: TaskContext) -> TaskResult;
}

/// How a task type uses the two paths of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Use of `input_file_path`.
    pub input: PathUse,
    /// Use of `output_file_path`.
    pub output: PathUse,
}

impl Paths {
    /// Uses neither path.
    pub const NONE: Self = Self { input: PathUse::Unused, output: PathUse::Unused };
    /// Reads an input and writes an output, and cannot do without either.
    pub const BOTH: Self = Self { input: PathUse::Required, output: PathUse::Required };
}

/// Whether a path has to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathUse {
    /// Accepted and echoed, but never opened.
    Unused,
    /// Used if it is given.
    Optional,
    /// A submission without it is refused.
    Required,
}
