//! Tests that are skipped, because this machine lacks what they need. The harness hides what a test prints
//! that passes, so `tests/skipped.rs`, which runs last, prints them all once more.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::thread;

/// Notes that the test of this thread is skipped, and why.
pub(crate) fn skip(reason: &str) {
    let thread = thread::current();
    let line = format!("skipped: {}: {reason}", thread.name().unwrap_or("a test"));
    println!("{line}");
    let mut file = OpenOptions::new().create(true).append(true).open(record()).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// Cargo is the parent of all test programs of a run.
pub(crate) fn record() -> PathBuf {
    [env!("CARGO_TARGET_TMPDIR"), &format!("skipped-{}", parent_id())].iter().collect()
}
