//! The command line, tried on the real binary against a real server.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, their helpers too")]

mod backup;
#[path = "../common/mod.rs"]
mod common;
mod exit_codes;
mod lists;
mod program;
mod run;
mod stub;
mod tls;
mod unheard;
mod verbs;
mod watch;
