//! The command line.

mod health;
mod key;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::task::with_causes;

/// Runs long-running work for HTTP clients: submit with POST /tasks, poll with GET /tasks/{id},
/// cancel with DELETE /tasks/{id}.
///
/// Without any option it listens on 127.0.0.1:8000 and keeps its tasks in tasks.db in the working
/// directory. Open http://127.0.0.1:8000/docs to try the API out.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Asks the server on this machine whether it takes submissions; fails if it does not
    Health(health::HealthArgs),
    /// Manages the API keys
    #[command(subcommand)]
    Key(key::KeyVerb),
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let Cli { verb, serve } = Cli::parse();
    let done = match verb {
        None => serve::run(serve).map_err(|error| with_causes(&error)),
        Some(Verb::Health(args)) => health::run(args).map_err(|error| with_causes(&error)),
        Some(Verb::Key(verb)) => key::run(verb).map_err(|error| with_causes(&error)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("task-server: {error}");
            ExitCode::FAILURE
        }
    }
}
