//! Supervision of programs: nothing that a task has started outlives it, whatever dies.
//!
//! # Processes
//! ```text
//! server ── supervisor ── second stage, becomes the program ── its descendants
//! ```
//! The supervisor and the second stage are this executable, run with a hidden verb. `unsafe` is forbidden, so
//! no code can run between fork and exec. Instead, each stage prepares itself and then starts the next one.
//!
//! | death of | kills the program | kills its descendants |
//! |---|---|---|
//! | server, or a dropped [`Supervised`] | supervisor, at the end of its standard input (the leash) | supervisor |
//! | supervisor | `PDEATHSIG` | server, which inherits them as a subreaper |
//! | both | `PDEATHSIG` | next server, in [`await_earlier`] |
//!
//! # Architecture invariants
//! - All processes are gone if and only if `waitpid` of a subreaper fails with `ECHILD`. `/proc` only shows
//!   candidates for a signal: a process that forks and exits in a loop may escape any search.
//! - Every pid is signalled through a pidfd that was opened before the identity check. A process group is
//!   signalled only while a descendant is in it. So no signal hits an unrelated process that reuses an id.
//! - The supervisor has a single thread, because `PDEATHSIG` follows the thread that started the program.
//! - The server starts all its children with [`children::OwnChild`], which tells them from inherited ones.

mod children;
mod earlier;
mod exec;
mod handle;
mod leash;
mod memory;
mod processes;
mod protocol;
mod stage;
mod supervise;

use std::process::ExitCode;

pub(crate) use children::become_subreaper;
pub(super) use earlier::await_earlier;
pub(super) use handle::{Ended, Phase, Supervised};
pub(super) use protocol::Order;

/// Does the work of a supervisor or of a second stage if this process was started as one. Has to be called
/// first: a supervisor has a single thread.
pub fn hidden_verb() -> Option<ExitCode> {
    match std::env::args_os().nth(1)?.to_str()? {
        protocol::SUPERVISE => Some(supervise::supervise()),
        protocol::EXEC_PROGRAM => Some(exec::exec_program()),
        _ => None,
    }
}
