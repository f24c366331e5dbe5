//! A task server.

pub mod app;
pub mod cli;
pub mod config;
pub mod http;
pub mod manager;
pub mod store;
pub mod task;
pub mod tasks;
