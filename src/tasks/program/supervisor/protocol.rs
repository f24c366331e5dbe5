//! Messages between the server, the supervisor and the second stage.
//!
//! On the leash, a socket, the server sends the line of a [`Head`], then [`Head::body`] bytes for the second
//! stage, then lines of [`Command`]. The supervisor sends lines of [`Report`].
//!
//! The supervisor forwards those bytes to the second stage over another socket: the line of a [`Program`],
//! then [`Program::stdin`] bytes. The second stage answers [`READY`] just before exec. A successful exec
//! closes the socket; after a failed one, the second stage sends the reason as text.

use std::ffi::OsString;
use std::io;
use std::path::{self, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Verb that makes this executable a supervisor.
pub(crate) const SUPERVISE: &str = "supervise";
/// Verb that makes this executable the second stage.
pub(crate) const EXEC_PROGRAM: &str = "exec-program";

/// Name of both processes in `ps`.
pub(super) const NAME: &str = "task-server";

/// Byte that the second stage sends before it runs the program.
pub(super) const READY: u8 = b'.';

/// A program to run.
#[derive(Debug)]
pub(crate) struct Order {
    /// Program and arguments. A program without a slash is looked up in the `PATH` of `env`.
    pub(crate) argv: Vec<OsString>,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Working folder.
    pub(crate) folder: PathBuf,
    /// Contents of standard input.
    pub(crate) stdin: Vec<u8>,
    /// Memory limit for all processes together, in bytes.
    pub(crate) memory: Option<u64>,
    /// Time from SIGTERM to SIGKILL for descendants of a program that has failed.
    pub(crate) grace: Duration,
    /// Existing file that the supervisor locks while it lives. See [`super::await_earlier`].
    pub(crate) lock: PathBuf,
}

impl Order {
    /// Encodes the order as the first bytes on the leash.
    pub(super) fn encode(self) -> io::Result<Vec<u8>> {
        let Self { argv, env, folder, stdin, memory, grace, lock } = self;
        let program = Program { argv, env, folder: folder.into(), stdin: stdin.len() };
        let mut body = line(&program)?;
        body.extend(stdin);
        let head =
            Head { memory, grace, lock: path::absolute(lock)?.into(), body: body.len() as u64 };
        let mut bytes = line(&head)?;
        bytes.extend(body);
        Ok(bytes)
    }
}

/// Supervisor's part of an [`Order`].
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Head {
    pub(super) memory: Option<u64>,
    pub(super) grace: Duration,
    pub(super) lock: OsString,
    /// Number of bytes that follow.
    pub(super) body: u64,
}

/// Second stage's part of an [`Order`].
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Program {
    pub(super) argv: Vec<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) folder: OsString,
    /// Number of bytes that follow.
    pub(super) stdin: usize,
}

/// Message from the server to the supervisor, after the order.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Command {
    /// SIGTERM now, SIGKILL after the grace.
    Stop { grace_ms: u64 },
}

/// Message from the supervisor to the server.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    Started {
        pid: i32,
    },
    FailedToStart {
        error: String,
    },
    MainEnded(MainEnd),
    /// The program has ended well, but not all its descendants.
    Waiting {
        processes: usize,
    },
    MemoryExceeded {
        bytes: u64,
    },
    /// The last one: no process is left.
    Gone,
}

/// End of the program itself.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MainEnd {
    Code(i32),
    Signal(i32),
}

/// Encodes a message as one line.
pub(super) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
