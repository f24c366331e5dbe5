//! Processes that an earlier server has left behind.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, getpid};

use super::processes::kill_if;

/// Variable that marks the processes of tasks.
const MARKER: &[u8] = b"TASK_DIR=";
/// Pause between two attempts to take the lock, and between two sweeps.
const PAUSE: Duration = Duration::from_millis(10);
/// Time between two log entries.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Waits for the supervisors of an earlier server to exit, then kills all processes with a `TASK_DIR` below
/// `marker`. `lock` is the file in [`super::Order::lock`]; it is created if missing.
///
/// Blocks. Call it before the first program starts.
///
/// # Errors
/// If the lock file cannot be created or locked.
pub(crate) fn await_earlier(lock: &Path, marker: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(lock)?;
    let mut log = Log { since: Instant::now(), entries: 0 };
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {
                log.waiting("waiting for supervisors of an earlier run")
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        sleep(PAUSE);
    }
    // A supervisor that is still starting cannot take the lock now, and does not run its program.
    while kill_if(|pid| is_marked(pid, marker)) {
        log.waiting("killing processes of tasks of an earlier run");
        sleep(PAUSE);
    }
    Ok(())
}

/// Returns whether a process has a `TASK_DIR` below `marker`. The environment of a zombie is empty, and
/// another user's is unreadable.
fn is_marked(pid: Pid, marker: &Path) -> bool {
    let environ = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
    let mut values =
        environ.split(|byte| *byte == 0).filter_map(|entry| entry.strip_prefix(MARKER));
    pid != getpid() && values.any(|dir| Path::new(OsStr::from_bytes(dir)).starts_with(marker))
}

/// Log of a long wait.
#[derive(Debug)]
struct Log {
    since: Instant,
    entries: u32,
}

impl Log {
    fn waiting(&mut self, message: &'static str) {
        if self.since.elapsed() >= LOG_EVERY * self.entries {
            self.entries += 1;
            tracing::info!("{message}");
        }
    }
}
