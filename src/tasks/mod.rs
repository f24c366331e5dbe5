//! The contributors' room: one file for each kind of task, and the registry that knows them.

mod dummy;
mod image_process;
mod registry;
mod tokenize;

pub use registry::{InvalidDefaults, RegisteredTask, TaskRegistry};
