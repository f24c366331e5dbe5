//! A server process: start, address, signals, and its figures in `/proc`. Tests and benches share this file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Timeout of every wait for a server.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

/// A running server, killed on drop.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Receives the address once. The log thread owns the sender, so the channel closes at the end of the log.
    address: Receiver<String>,
}

impl Process {
    /// Starts a server. A thread reads its log, so the server never blocks on a full pipe, and calls `on_line` for
    /// each line.
    pub(crate) fn spawn(
        mut command: Command,
        mut on_line: impl FnMut(String) + Send + 'static,
    ) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, address) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let listening = address_in(&line);
                on_line(line);
                if let Some(address) = listening {
                    let _ = sender.send(address);
                }
            }
        });
        Self { child, address }
    }

    /// Waits until the server listens; returns its address.
    pub(crate) fn wait_for_address(&self) -> String {
        self.address_within(PATIENCE).expect("the server does not listen")
    }

    /// Address of the server, or `None` if it does not listen within `time`.
    ///
    /// Panics if the server exits first.
    pub(crate) fn address_within(&self, time: Duration) -> Option<String> {
        match self.address.recv_timeout(time) {
            Ok(address) => Some(address),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the server exited instead of listening"),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Sends SIGKILL and waits for the exit.
    pub(crate) fn kill(&mut self) {
        // Fails if the process has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until the process exits by itself and its log has been read.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            match self.address.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("the server does not exit"),
            }
        }
    }

    /// Peak resident memory in bytes.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        Some(1024 * proc_number(self.id(), "status", "VmHWM:")?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Builds a command that inherits no server settings from the environment.
pub(crate) fn command(
    binary: &Path,
    folder: &Path,
    args: &[&str],
    env: &[(&str, &str)],
) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TASK_SERVER_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.args(args).envs(env.iter().copied()).current_dir(folder).stdin(Stdio::null());
    command
}

/// Number after `name` in `/proc/PID/file`; `None` where the system has no such file or line.
pub(crate) fn proc_number(process: u32, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn address_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on http://")?;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".:[]".contains(c)));
    Some(rest[..end.unwrap_or(rest.len())].to_owned())
}
