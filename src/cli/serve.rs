//! Serves until a signal ends it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::PanicHookInfo;

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::settings::SettingsFile;
use crate::app::{App, AppError, wanted_files};
use crate::config::{LogFormat, Settings};
use crate::tasks::TaskRegistry;

/// What a shell reports of a process that was ended by Ctrl-C.
const EXIT_INTERRUPTED: i32 = 130;

#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    file: SettingsFile,

    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: ServeArgs) -> Result<(), AppError> {
    let config = args.file.with(args.settings)?;
    start_logging(config.log_format, "info");
    raise_file_limit(wanted_files(&config));
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|source| AppError::Start(crate::manager::StartError::Threads(source)))?;
    let served = runtime.block_on(async {
        let app = App::build(config, TaskRegistry::builtin()).await?;
        app.serve(shutdown_signal()).await;
        Ok(())
    });
    // A thread that never ends must not hold up the end of the server.
    runtime.shutdown_background();
    served
}

/// A panic is an entry of the log like any other: what it says may come from a client, and must not
/// look like lines of its own.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let known = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = known.then(|| backtrace.to_string());
    tracing::error!(panic = panic.to_string(), backtrace, "a thread panicked");
}

/// Many systems allow a program 1024 open files unless it asks for more. What clients may use is sized by
/// what was allowed in the end.
fn raise_file_limit(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if limit.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })
    {
        tracing::warn!(%error, wanted, "cannot raise the limit of open files");
    }
}

/// Cancelled by the first SIGTERM or Ctrl-C. The second one ends the process at once.
fn shutdown_signal() -> CancellationToken {
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    // Before anybody is told that the server is there.
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals, so only SIGKILL ends this server");
        return shutdown;
    };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if told.is_cancelled() {
                tracing::warn!("second signal, stopping at once; running tasks run again");
                std::process::exit(EXIT_INTERRUPTED);
            }
            told.cancel();
        }
    });
    shutdown
}

/// Logs to standard error, so that standard output stays free: panics too. `RUST_LOG` says how much,
/// or else `default`.
pub(super) fn start_logging(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // A line that cannot be written would be complained of where it could not, with a panic.
    let logging = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    let logging = logging.with_writer(io::stderr);
    match format {
        LogFormat::Text => logging.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => logging.json().init(),
    }
    std::panic::set_hook(Box::new(log_panic));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A log that can be read.
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
    fn a_panic_is_one_line_of_the_log() {
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
