//! Faults that the whole process has to stand: a task that kills it, a clock that jumps.
//!
//! No task that ships does such things, and the allocator of the real binary does not get along with
//! a library that replaces the clock. So this binary starts itself again, as a server.

mod clock;
mod disk;
mod poison;
mod server;
