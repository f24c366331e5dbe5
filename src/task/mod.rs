//! The lowest layer: the [`Task`] trait, and everything that the code of a task may use.
//!
//! A task is a struct that **is** its parameters: serde parses it, schemars describes it, and
//! [`Task::execute`] does the work with the help of a [`TaskContext`].

mod blocking;
mod context;
mod ending;
mod error;
mod fault;
mod files;
mod hidden;
mod info;
mod log;
mod memory;
mod output;
mod parallel;
mod progress;
mod removal;
mod reserved;
mod schema;
mod state_folder;
#[cfg(test)]
pub(crate) mod testing;
mod types;

pub use async_trait::async_trait;
pub use blocking::CpuSlots;
pub(crate) use blocking::{BlockingWork, ReservedCpus, SlotWait};
pub(crate) use context::Attempt;
pub use context::TaskContext;
pub(crate) use ending::Ending;
pub(crate) use error::with_causes;
pub use error::{InvalidParameters, TaskError};
pub use fault::Fault;
pub(crate) use fault::{MAX_FAULTS, expected_names};
pub(crate) use files::machine;
pub use files::{Files, FilesError, PathError};
pub(crate) use files::{ListedFile, Published};
pub(crate) use info::new_uuid;
pub use info::{TaskId, TaskInfo, TaskStatus, Timestamp};
pub(crate) use log::{LogEntry, LogFolder, LogText, attach, tail_lines};
pub use log::{LogSource, TaskLog, task_logs};
pub(crate) use memory::MemoryBudget;
pub use memory::{MEMORY_BUDGET, ReservedMemory};
pub(crate) use output::Output;
pub use output::OutputFile;
pub(crate) use progress::{Progress, shorten};
pub(crate) use schema::{CompiledSchema, schema_of};
pub(crate) use state_folder::{AttemptFolders, StateFolder};
pub use types::{DeclaredName, TaskType};

/// Outcome of a task: the JSON object for `result`, or an error.
pub type TaskResult = Result<serde_json::Value, TaskError>;

/// A unit of work that the server can run.
///
/// The implementing struct holds the parameters, so it also derives `serde::Deserialize` and
/// `schemars::JsonSchema`. Its doc comment is the description of the task type that users see.
#[async_trait]
pub trait Task: Send + Sync + 'static {
    /// Use of the input and the output path of a submission. By default the task uses neither.
    fn paths() -> Paths
    where
        Self: Sized,
    {
        Paths::NONE
    }

    /// Checks constraints that neither types nor schema express, such as those between fields.
    /// Called before a task is accepted, on parameters that match the schema.
    ///
    /// # Errors
    /// All faults, not just the first.
    fn validate(&self) -> Result<(), InvalidParameters> {
        Ok(())
    }

    /// Does the work. After a cancellation or a timeout the future is dropped at its next await, so
    /// cleanup belongs in `Drop`.
    ///
    /// # Errors
    /// Any error fails the attempt, and the task unless attempts are left. Its text becomes `error`.
    async fn execute(self: Box<Self>, ctx: TaskContext) -> TaskResult;
}

/// Use of the two paths of a submission by a task type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Use of `input_file_path`.
    pub input: PathUse,
    /// Use of `output_file_path`.
    pub output: PathUse,
    /// What the task writes there.
    pub output_kind: OutputKind,
}

impl Paths {
    /// Uses neither path.
    pub const NONE: Self =
        Self { input: PathUse::Unused, output: PathUse::Unused, output_kind: OutputKind::File };
    /// Requires both an input and an output.
    pub const BOTH: Self =
        Self { input: PathUse::Required, output: PathUse::Required, ..Self::NONE };
}

/// What a task writes at its output path.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// One file.
    #[default]
    File,
    /// A folder of files.
    Folder,
}

/// Use of one path.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PathUse {
    /// Accepted and returned in the record, but never opened.
    #[serde(alias = "none")]
    Unused,
    /// Used if present.
    Optional,
    /// A submission without the path is refused.
    Required,
}
