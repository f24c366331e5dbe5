//! Runs the program and captures its output.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::common::{self, PATIENCE, Server};

/// A command that has exited.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Standard output as JSON lines.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// First word of standard output.
    #[track_caller]
    pub(crate) fn id(&self) -> String {
        self.stdout.split_whitespace().next().unwrap().to_owned()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {:?}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs a command against the server.
pub(crate) fn ask(server: &Server, args: &[&str]) -> Ended {
    ask_at(&server.url(""), server.folder(), args)
}

/// Runs a command against the server at this URL.
pub(crate) fn ask_at(url: &str, folder: &Path, args: &[&str]) -> Ended {
    common::run(folder, args, &[("TASK_SERVER_URL", url)]).into()
}

/// A running command.
pub(crate) struct Started {
    child: Child,
    /// Standard error, line by line.
    lines: Receiver<String>,
    seen: String,
    stdout: JoinHandle<String>,
}

impl Started {
    pub(crate) fn new(url: &str, folder: &Path, args: &[&str]) -> Self {
        let mut child = common::piped(folder, args, &[("TASK_SERVER_URL", url)]);
        let (sender, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // The test may have ended.
                let _ = sender.send(line);
            }
        });
        let mut stdout = child.stdout.take().unwrap();
        let stdout = thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, lines, seen: String::new(), stdout }
    }

    /// Waits for a line of standard error that contains `part`.
    pub(crate) fn until(&mut self, part: &str) {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen += &format!("{line}\n");
                    if line.contains(part) {
                        return;
                    }
                }
                Err(error) => panic!("`{part}` was not said ({error}): {}", self.seen),
            }
        }
    }

    /// Sends SIGINT, like Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let kill = format!("kill -INT {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    pub(crate) fn end(mut self) -> Ended {
        // Ends when the program does.
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen += &format!("{line}\n");
        }
        let code = self.child.wait().unwrap().code();
        Ended { code, stdout: self.stdout.join().unwrap(), stderr: self.seen }
    }
}
