//! The `task-server` program.

use std::process::ExitCode;

/// Fewer system calls and less contention than the system's allocator under many small requests. It
/// serves SQLite too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    task_server::cli::main()
}
