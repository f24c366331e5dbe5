//! Serves until a signal ends it.

use std::io;
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::app::{App, AppError};
use crate::config::{Config, LogFormat, Settings};
use crate::tasks::TaskRegistry;

/// What a shell reports of a process that was ended by Ctrl-C.
const EXIT_INTERRUPTED: i32 = 130;

#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    /// Settings file; flags and environment win over it [default: task-server.toml if it is there]
    #[arg(long, env = "TASK_SERVER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: ServeArgs) -> Result<(), AppError> {
    // With huge pages every thread's few small objects take megabytes. Without the means the server
    // is merely larger.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let config = Config::load(args.settings, args.config.as_deref())?;
    start_logging(config.log_format);
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

/// Logs to standard error, so that standard output stays free. `RUST_LOG` says how much.
fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => logging.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => logging.json().init(),
    }
}
