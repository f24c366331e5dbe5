//! A task server.

pub mod task;
pub mod tasks;
