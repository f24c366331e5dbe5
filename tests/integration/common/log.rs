//! A server process with its log.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use super::process::Process;

/// A server process whose log is kept.
pub(super) struct Logged {
    // Dropped first, so that the log is complete when it is printed.
    pub(super) process: Process,
    pub(super) log: Log,
}

impl Logged {
    pub(super) fn spawn(command: Command) -> Self {
        let text = Arc::<Mutex<String>>::default();
        let process = Process::spawn(command, {
            let text = Arc::clone(&text);
            move |line| *text.lock().unwrap() += &format!("{line}\n")
        });
        Self { process, log: Log(text) }
    }
}

/// Log of a server. Printed on drop if the test fails.
pub(super) struct Log(Arc<Mutex<String>>);

impl Log {
    /// The log so far; all of it after [`Process::wait_exit`].
    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.text());
        }
    }
}
