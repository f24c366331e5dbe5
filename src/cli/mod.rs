//! The command line: one file per verb, and their shared parts.

mod backup;
mod cancel;
mod client;
mod columns;
mod completions;
mod events;
mod exit;
mod filters;
mod get;
mod health;
mod ids;
mod key;
mod list;
mod log;
mod openapi;
mod output;
mod parameters;
mod paths;
mod progress;
mod python_helper;
mod record;
mod retry;
mod run;
mod selection;
mod serve;
mod settings;
mod stats;
mod submit;
mod terminal;
mod types;
mod view;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use exit::{EXIT_CODES, Exit, Failure, Outcome};

/// Runs long tasks for HTTP clients: submit with POST /tasks, poll with GET /tasks/{id}, cancel with
/// DELETE /tasks/{id}.
///
/// Without a command, starts the server on 127.0.0.1:8000 with its tasks in tasks.db in the working
/// directory. Open http://127.0.0.1:8000/docs to try out the API. Most commands are clients of such a
/// server.
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
    Log(log::LogArgs),
    Watch(watch::WatchArgs),
    Cancel(cancel::CancelArgs),
    Retry(retry::RetryArgs),
    Stats(stats::StatsArgs),
    Types(types::TypesArgs),
    Progress(progress::ProgressArgs),
    PythonHelper(python_helper::PythonHelperArgs),
    Openapi(openapi::OpenapiArgs),
    Run(run::RunArgs),
    Backup(backup::BackupArgs),
    Health(health::HealthArgs),
    Completions(completions::CompletionsArgs),
    /// Manages API keys
    #[command(subcommand)]
    Key(key::KeyVerb),
}

/// Parses the command line and runs the verb.
pub fn main() -> ExitCode {
    let Cli { verb, serve } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Printing fails only if the output is closed, so there is nowhere to report it.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let outcome = match verb {
        None => serve::run(serve),
        Some(Verb::Submit(args)) => block_on(submit::run(args)),
        Some(Verb::List(args)) => block_on(list::run(args)),
        Some(Verb::Get(args)) => block_on(get::run(args)),
        Some(Verb::Output(args)) => block_on(output::run(args)),
        Some(Verb::Log(args)) => block_on(log::run(args)),
        Some(Verb::Watch(args)) => block_on(watch::run(args)),
        Some(Verb::Cancel(args)) => block_on(cancel::run(args)),
        Some(Verb::Retry(args)) => block_on(retry::run(args)),
        Some(Verb::Stats(args)) => block_on(stats::run(args)),
        Some(Verb::Types(args)) => block_on(types::run(args)),
        Some(Verb::Progress(args)) => progress::run(args),
        Some(Verb::PythonHelper(args)) => python_helper::run(args),
        Some(Verb::Openapi(args)) => block_on(openapi::run(args)),
        Some(Verb::Run(args)) => run_in(Runtime::new(), run::run(args)),
        Some(Verb::Backup(args)) => block_on(backup::run(args)),
        Some(Verb::Health(args)) => block_on(health::run(args)),
        Some(Verb::Completions(args)) => completions::run(&args),
        Some(Verb::Key(verb)) => key::run(verb),
    };
    let exit = outcome.unwrap_or_else(|failure| {
        failure.report();
        failure.exit
    });
    exit.into()
}

/// Runs a verb on this thread; most verbs only wait for I/O.
fn block_on(verb: impl Future<Output = Outcome>) -> Outcome {
    run_in(Builder::new_current_thread().enable_all().build(), verb)
}

fn run_in(runtime: std::io::Result<Runtime>, verb: impl Future<Output = Outcome>) -> Outcome {
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Internal, format!("cannot start the async runtime: {error}"))
    })?;
    let outcome = runtime.block_on(verb);
    // Does not wait for blocking threads, which may never end.
    runtime.shutdown_background();
    outcome
}
