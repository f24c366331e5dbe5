//! The tasks, each in a file or folder, and their registry.

mod dummy;
mod image_process;
mod registry;
mod tokenize;

pub use registry::{InvalidDefaults, RegisteredTask, TaskRegistry};
