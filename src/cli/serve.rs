//! `task-server` without a verb: serves until a signal arrives.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::PanicHookInfo;

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use super::exit::{Exit, Failure, Outcome};
use super::settings::SettingsFile;
use crate::app::{App, AppError, wanted_files};
use crate::config::{LogFormat, Settings};
use crate::manager::StartError;
use crate::task::{task_logs, with_causes};
use crate::tasks::TaskRegistry;

#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    file: SettingsFile,

    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: ServeArgs) -> Outcome {
    match serve(args) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(Failure::new(Exit::Failed, with_causes(&error))),
    }
}

fn serve(args: ServeArgs) -> Result<(), AppError> {
    let config = args.file.with(args.settings)?;
    start_logging(config.log_format, "info");
    raise_file_limit(wanted_files(&config));
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|source| AppError::Start(StartError::Threads(source)))?;
    let served = runtime.block_on(async {
        let app = App::build(config, TaskRegistry::builtin()).await?;
        app.serve(shutdown_signal()).await;
        Ok(())
    });
    // Does not wait for blocking threads, which may never end.
    runtime.shutdown_background();
    served
}

/// Logs a panic as one entry. Its message may contain client input, which must not forge log lines.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let known = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = known.then(|| backtrace.to_string());
    tracing::error!(panic = panic.to_string(), backtrace, "a thread panicked");
}

/// Raises the soft open-file limit, often 1024, towards `wanted`. Client limits are derived from the result.
fn raise_file_limit(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if limit.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })
    {
        tracing::warn!(%error, wanted, "cannot raise the open-file limit");
    }
}

/// Returns a token that the first SIGTERM or Ctrl-C cancels. The second one ends the process.
fn shutdown_signal() -> CancellationToken {
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    // Registered before the server announces its address.
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals, only SIGKILL stops this server");
        return shutdown;
    };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if token.is_cancelled() {
                tracing::warn!("second signal, exiting now; running tasks run again");
                std::process::exit(Exit::Interrupted as i32);
            }
            token.cancel();
        }
    });
    shutdown
}

/// Sends log entries and panics to standard error, filtered by `RUST_LOG` or else `default`. What tasks say
/// goes to their logs as well, whatever that filter.
pub(super) fn start_logging(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // Reporting a write error on the same closed standard error would panic.
    let logging = fmt::layer().log_internal_errors(false).with_writer(io::stderr);
    let logging = match format {
        LogFormat::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            logging.with_ansi(colours).with_filter(filter).boxed()
        }
        LogFormat::Json => logging.json().with_filter(filter).boxed(),
    };
    tracing_subscriber::registry().with(logging).with(task_logs()).init();
    std::panic::set_hook(Box::new(log_panic));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Captured log.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_as_one_line() {
        let log = Log::default();
        let writer = log.clone();
        let logging =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        tracing::subscriber::with_default(logging.finish(), || {
            let panicking = || panic!("no such {}", "thing\n INFO forged: \u{1b}[31m");
            assert!(std::panic::catch_unwind(panicking).is_err());
        });
        std::panic::set_hook(before);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r"thing\n INFO forged: \u{1b}[31m"), "{text}");
    }
}
