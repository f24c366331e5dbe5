//! The HTTP contract and the life of tasks, tried on the real binary from outside.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, their helpers too")]

mod admission;
mod cancel;
#[path = "../common/mod.rs"]
mod common;
mod crashes;
mod database_files;
mod databases;
mod disconnects;
mod discovery;
mod disk_full;
mod dry_run;
mod events;
mod fat_answers;
mod few_files;
mod hostile_clients;
mod hostile_images;
mod hostile_paths;
mod hostile_requests;
mod http_errors;
mod idempotency;
mod ignored_input;
mod key_new;
mod keys;
mod lifecycle;
mod limits;
mod list;
mod long_polls;
mod many;
mod metrics;
mod output;
mod page;
mod query;
mod refused_bodies;
mod retention;
mod retry;
mod schedule;
mod security;
mod shutdown;
mod slow_readers;
mod startup;
mod submit_body;
mod submit_fields;
mod submit_paths;
mod tags;
mod unusable_databases;
