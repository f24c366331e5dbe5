//! The server's process: its birth, its log, its end.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// One run of the binary. A thread drains its log, so that it never waits for us.
pub(super) struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    lines: Receiver<String>,
}

impl Process {
    pub(super) fn spawn(binary: &Path, folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = command(binary, folder, args, env);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::default();
        let (sender, lines) = mpsc::channel();
        let stderr = child.stderr.take().unwrap();
        thread::spawn({
            let log = Arc::clone(&log);
            move || drain(stderr, &log, &sender)
        });
        Self { child, log, lines }
    }

    /// Reads the log up to the line that tells where the server listens.
    pub(super) fn wait_for_address(&self) -> String {
        let Some(address) = self.address_within(PATIENCE) else {
            panic!("the server does not listen: {}", self.log())
        };
        address
    }

    /// Where the server listens, if it says so in that time.
    pub(super) fn address_within(&self, time: Duration) -> Option<String> {
        let begin = Instant::now();
        loop {
            match self.lines.recv_timeout(time.saturating_sub(begin.elapsed())) {
                Ok(line) => {
                    if let Some((_, rest)) = line.split_once("listening on http://") {
                        let end =
                            rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".:[]".contains(c)));
                        return Some(rest[..end.unwrap_or(rest.len())].to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the server ended instead of listening: {}", self.log())
                }
            }
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    pub(super) fn kill(&mut self) {
        // Fails if the process has ended already, which is as good.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// The log ends when the process does.
    pub(super) fn wait_exit(&mut self) -> ExitStatus {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("the server does not end"),
            }
        }
    }

    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log());
        }
    }
}

/// A command with no settings but these in its environment.
pub(super) fn command(
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

fn drain(stderr: ChildStderr, log: &Mutex<String>, lines: &Sender<String>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let mut log = log.lock().unwrap();
        log.push_str(&line);
        log.push('\n');
        drop(log);
        // Nobody listens any more once the server was killed.
        let _ = lines.send(line);
    }
}
