//! The server as its users meet it: the real binary, a real socket, a real database. One crate for all of
//! it, because linking one takes as long as running many tests.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, their helpers too")]

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
mod ported_clients;
