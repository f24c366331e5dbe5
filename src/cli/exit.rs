//! Exit codes and error messages of the verbs.

use std::io;
use std::process::ExitCode;

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::terminal::{escape, report};

/// Last section of `--help`.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  success; a task that was waited for completed
   1  the task failed, or the server could not start
   2  the task was cancelled
  64  invalid command line, or the submission was rejected
  65  no such task, wrong state of the task, or malformed file
  66  input file missing
  69  server unreachable
  70  internal error, usually of the server
  73  file or key cannot be created or already exists
  74  reading or writing failed
  75  server busy or shutting down, or another task in the way: try again later
  76  the other end is not a task-server
  77  permission denied: API key missing or wrong
 130  interrupted by Ctrl-C; watched tasks go on
 143  terminated by SIGTERM";

/// Exit code. Values from 64 to 78 follow BSD's `sysexits.h`.
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

/// Error of a verb.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// One or more lines for standard error.
    pub(super) message: String,
}

pub(super) type Outcome = Result<Exit, Failure>;

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(super) fn report(&self) {
        report(&self.message);
    }
}

/// Catches a signal that would otherwise end the process.
pub(super) fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| {
        Failure::new(Exit::Internal, format!("cannot listen for signals: {error}"))
    })
}

/// Formats a fault of a submission: `parameters.steps: what was expected`.
pub(super) fn fault_line(loc: &[Value], msg: &str) -> String {
    let part = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
    let loc: Vec<_> = loc.iter().map(part).collect();
    escape(&format!("{}: {msg}", loc.join(".")))
}

/// Converts an error of writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // The reader has had enough, as in `task-server list | head`.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Done, "");
        }
        Self::new(Exit::Io, format!("cannot write to standard output: {error}"))
    }
}
