//! The command line.

mod backup;
mod cancel;
mod client;
mod columns;
mod completions;
mod each;
mod events;
mod exit;
mod filters;
mod get;
mod health;
mod ids;
mod key;
mod list;
mod openapi;
mod output;
mod parameters;
mod paths;
mod record;
mod retry;
mod run;
mod serve;
mod settings;
mod stats;
mod submit;
mod terminal;
mod types;
mod view;
mod watch;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::task::with_causes;
use exit::{EXIT_CODES, Exit, Failure, Outcome};

/// Runs long-running work for HTTP clients: submit with POST /tasks, poll with GET /tasks/{id},
/// cancel with DELETE /tasks/{id}.
///
/// Without a command it serves: it listens on 127.0.0.1:8000 and keeps its tasks in tasks.db in the
/// working directory. Open http://127.0.0.1:8000/docs to try the API out. Most commands are clients
/// of such a server.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Submit(submit::SubmitArgs),
    List(list::ListArgs),
    Get(get::GetArgs),
    Output(output::OutputArgs),
    Watch(watch::WatchArgs),
    Cancel(cancel::CancelArgs),
    Retry(retry::RetryArgs),
    Stats(stats::StatsArgs),
    Types(types::TypesArgs),
    Openapi(openapi::OpenapiArgs),
    Run(run::RunArgs),
    Backup(backup::BackupArgs),
    /// Asks a server whether it takes submissions, this machine's unless told otherwise; fails if it does not
    Health(health::HealthArgs),
    Completions(completions::CompletionsArgs),
    /// Manages the API keys
    #[command(subcommand)]
    Key(key::KeyVerb),
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let Cli { verb, serve } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that cannot be printed has no other place to say so.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let outcome = match verb {
        None => done(serve::run(serve)),
        Some(Verb::Health(args)) => health::run(args),
        Some(Verb::Submit(args)) => ask(submit::run(args)),
        Some(Verb::List(args)) => ask(list::run(args)),
        Some(Verb::Get(args)) => ask(get::run(args)),
        Some(Verb::Output(args)) => ask(output::run(args)),
        Some(Verb::Stats(args)) => ask(stats::run(args)),
        Some(Verb::Watch(args)) => ask(watch::run(args)),
        Some(Verb::Cancel(args)) => ask(cancel::run(args)),
        Some(Verb::Retry(args)) => ask(retry::run(args)),
        Some(Verb::Types(args)) => ask(types::run(args)),
        Some(Verb::Openapi(args)) => ask(openapi::run(args)),
        Some(Verb::Run(args)) => run_in(Runtime::new(), run::run(args)),
        Some(Verb::Backup(args)) => ask(backup::run(args)),
        Some(Verb::Completions(args)) => completions::run(&args),
        Some(Verb::Key(verb)) => key::run(verb),
    };
    outcome
        .unwrap_or_else(|failure| {
            failure.say();
            failure.exit
        })
        .into()
}

fn done(result: Result<(), impl Error + 'static>) -> Outcome {
    match result {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(Failure::new(Exit::Failed, with_causes(&error))),
    }
}

/// Runs a verb that does little more than wait.
fn ask(verb: impl Future<Output = Outcome>) -> Outcome {
    run_in(Builder::new_current_thread().enable_all().build(), verb)
}

fn run_in(runtime: std::io::Result<Runtime>, verb: impl Future<Output = Outcome>) -> Outcome {
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Internal, format!("cannot start the threads: {error}"))
    })?;
    let outcome = runtime.block_on(verb);
    // A thread that never ends must not hold up the end.
    runtime.shutdown_background();
    outcome
}
