//! Entry point of `task-server`.

use std::process::ExitCode;

/// Beats the system allocator under many small requests: fewer system calls, less contention. Serves
/// SQLite too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The processes that supervise programs are this executable, and start before anything else.
    task_server::tasks::hidden_verb().unwrap_or_else(task_server::cli::main)
}
