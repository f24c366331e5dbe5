//! The tasks, each in a file or folder, and their registry.

mod dummy;
mod image_process;
mod program;
mod registered;
mod registry;
mod tokenize;

pub use program::{FolderOptions, TasksFolder, hidden_verb};
pub(crate) use program::{MAX_EVENT_BYTES, PYTHON_HELPER, become_subreaper};
pub use registered::{About, RegisteredTask};
pub use registry::{InvalidDefaults, TaskRegistry, TypeEntry};
