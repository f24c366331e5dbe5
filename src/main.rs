//! Entry point of `task-server`.

use std::process::ExitCode;

/// Beats the system allocator under many small requests: fewer system calls, less contention. Serves
/// SQLite too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    task_server::cli::main()
}
