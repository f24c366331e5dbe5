//! Faults of the whole process: a task that kills it, a clock that jumps, a failing disk.
//!
//! No shipped task does such things, and the real binary's allocator conflicts with the library
//! that replaces the clock. So this test binary starts itself as a server.

mod clock;
mod disk;
mod poison;
pub(crate) mod server;
mod talker;
