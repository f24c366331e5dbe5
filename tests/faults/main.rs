//! Faults that the whole process has to stand: a task that kills it, a clock that jumps.
//!
//! No task that ships does such things, and the allocator of the real binary does not get along with
//! a library that replaces the clock. So this binary starts itself again, as a server.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, their helpers too")]

mod clock;
#[path = "../common/mod.rs"]
mod common;
mod disk;
mod poison;
mod server;
