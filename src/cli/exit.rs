//! How a verb ends: the exit codes, and what is said of a failure.

use std::io;
use std::process::ExitCode;

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::terminal::{escape, say};

/// For the end of `--help`.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  done; a task that was waited for has completed
   1  the task has failed, or the server could not start
   2  the task was cancelled
  64  the command line makes no sense, or the submission was refused
  65  no such task, or it is in no state for this; a file is not what it has to be
  66  a file to read is missing
  69  the server cannot be reached
  70  internal error, mostly of the server
  73  a file or key cannot be made, or is there already
  74  reading or writing failed
  75  the server is busy or shutting down, or another task is in the way: try later
  76  what answers is no task-server
  77  no permission: the API key is missing or wrong
 130  interrupted by Ctrl-C; a task that was watched goes on
 143  ended by SIGTERM";

/// An exit code. Those from 64 on have the meaning that BSD's `sysexits.h` gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Done = 0,
    Failed = 1,
    Cancelled = 2,
    Usage = 64,
    Data = 65,
    NoInput = 66,
    Unavailable = 69,
    Internal = 70,
    CannotCreate = 73,
    Io = 74,
    TryLater = 75,
    Protocol = 76,
    NoPermission = 77,
    Interrupted = 130,
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb could not do its work.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// One line or more, for standard error.
    pub(super) message: String,
}

/// How a verb ends.
pub(super) type Outcome = Result<Exit, Failure>;

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// Says the message.
    pub(super) fn say(&self) {
        say(&self.message);
    }
}

/// Listens for a signal that would end the process otherwise.
pub(super) fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    let failed =
        |error| Failure::new(Exit::Internal, format!("cannot listen for signals: {error}"));
    signal(kind).map_err(failed)
}

/// One fault of a submission, as `parameters.steps: what was expected`.
pub(super) fn fault_line(loc: &[Value], msg: &str) -> String {
    let part = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
    let loc: Vec<_> = loc.iter().map(part).collect();
    escape(&format!("{}: {msg}", loc.join(".")))
}

/// Standard output cannot be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // Whoever reads has had enough, as in `task-server list | head`.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Done, "");
        }
        Self::new(Exit::Io, format!("cannot write to standard output: {error}"))
    }
}
