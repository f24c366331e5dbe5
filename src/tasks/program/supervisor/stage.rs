//! The second stage as its supervisor sees it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio, id};

use rustix::process::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::protocol::{EXEC_PROGRAM, NAME, READY};

/// A process that becomes the program when it receives the order.
#[derive(Debug)]
pub(super) struct SecondStage {
    pid: Pid,
    socket: UnixStream,
}

impl SecondStage {
    /// Starts the process with an empty environment: variables for the program, such as `LD_PRELOAD`, must
    /// not affect this executable.
    pub(super) fn spawn() -> io::Result<Self> {
        let (socket, its_end) = StdUnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let socket = UnixStream::from_std(socket)?;
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .args([EXEC_PROGRAM, &id().to_string()])
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(its_end)))
            .spawn()?;
        // The supervisor reaps it with all other children.
        Ok(Self { pid: Pid::from_child(&child), socket })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Socket over which the process gets the order.
    pub(super) fn socket(&mut self) -> &mut UnixStream {
        &mut self.socket
    }

    /// Resolves when the program runs: exec closes the other end of the socket.
    ///
    /// # Errors
    /// The reason if it does not run.
    pub(super) async fn started(mut self) -> Result<(), String> {
        let mut answer = Vec::new();
        // An error means that the process is dead, as does an early end.
        let _ = self.socket.read_to_end(&mut answer).await;
        match answer.strip_prefix(&[READY]) {
            Some([]) => Ok(()),
            None if answer.is_empty() => {
                Err("the process died before it ran the program".to_owned())
            }
            reason => Err(String::from_utf8_lossy(reason.unwrap_or(&answer)).into_owned()),
        }
    }
}
