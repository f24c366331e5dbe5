//! The supervisor's end of the leash.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, copy};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::protocol::{Command, Head, Report, line};
use super::stage::SecondStage;

/// Socket to the server. End of file means that the server is dead.
#[derive(Debug)]
pub(super) struct Leash {
    lines: Lines<BufReader<OwnedReadHalf>>,
    reports: OwnedWriteHalf,
}

impl Leash {
    pub(super) fn new(socket: StdUnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (reader, reports) = UnixStream::from_std(socket)?.into_split();
        Ok(Self { lines: BufReader::new(reader).lines(), reports })
    }

    /// Reads the first line.
    pub(super) async fn head(&mut self) -> io::Result<Head> {
        let line = self.lines.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Takes the shared lock that makes a later server wait for this supervisor. It is free unless a later
    /// server holds it exclusively.
    pub(super) fn lock(&self, path: &Path) -> io::Result<File> {
        let lock = || {
            let file = File::open(path)?;
            file.try_lock_shared()?;
            Ok(file)
        };
        let file = lock().map_err(|error: io::Error| {
            io::Error::other(format!("cannot lock `{}`: {error}", path.display()))
        })?;
        // The successor of a dead server may have released the lock before this supervisor took it.
        if self.is_severed()? {
            return Err(io::Error::other("the server is gone"));
        }
        Ok(file)
    }

    fn is_severed(&self) -> io::Result<bool> {
        let socket: &UnixStream = self.reports.as_ref();
        let mut poll_fds = [PollFd::new(socket, PollFlags::empty())];
        poll(&mut poll_fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(poll_fds[0].revents().contains(PollFlags::HUP))
    }

    /// Passes the bytes that follow the first line on to the second stage.
    pub(super) async fn forward(&mut self, length: u64, stage: &mut SecondStage) -> io::Result<()> {
        let mut body = self.lines.get_mut().take(length);
        match copy(&mut body, stage.socket()).await? {
            copied if copied == length => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Resolves with the next command, or with `None` when the server is dead.
    pub(super) async fn next(&mut self) -> Option<Command> {
        let line = self.lines.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    /// Sends a report. Never blocks: all reports together fit into the buffer of the socket.
    pub(super) fn report(&self, report: &Report) {
        let socket: &UnixStream = self.reports.as_ref();
        if let Ok(line) = line(report) {
            let _ = send(socket, &line, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }
}
