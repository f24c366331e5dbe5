//! The command line.

mod serve;

use std::process::ExitCode;

use clap::Parser;

/// Runs long-running work for HTTP clients: submit with POST /tasks, poll with GET /tasks/{id},
/// cancel with DELETE /tasks/{id}.
///
/// Without any option it listens on 127.0.0.1:8000 and keeps its tasks in tasks.db in the working
/// directory. Open http://127.0.0.1:8000/docs to try the API out.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(flatten)]
    serve: serve::ServeArgs,
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    serve::run(Cli::parse().serve)
}
