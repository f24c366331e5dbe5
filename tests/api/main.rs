//! The HTTP contract and the life of tasks, tried on the real binary from outside.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, their helpers too")]

mod admission;
mod cancel;
#[path = "../common/mod.rs"]
mod common;
mod crashes;
mod databases;
mod discovery;
mod http_errors;
mod lifecycle;
mod list;
mod query;
mod security;
mod startup;
mod submit_body;
mod submit_fields;
mod submit_paths;
