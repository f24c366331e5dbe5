//! End-to-end tests: the real binary, real sockets, real databases. All in one crate, because
//! linking a second test binary takes longer than running many tests.

#![allow(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

mod api;
mod cli;
mod clients;
mod common;
mod crash;
mod dashboard;
mod durability;
mod faults;
mod guide;
mod misbehaviour;
mod operations;
mod outputs;
mod ported_clients;
