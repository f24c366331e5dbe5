//! Tests skipped because this machine lacks something they need. The test harness hides the output
//! of passing tests, so `tests/skipped.rs`, which runs last, prints the list again.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::thread;

/// Records that the current test is skipped, and why.
pub(crate) fn skip(reason: &str) {
    let thread = thread::current();
    let line = format!("skipped: {}: {reason}", thread.name().unwrap_or("a test"));
    println!("{line}");
    let mut file = OpenOptions::new().create(true).append(true).open(record()).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// File of the recorded skips of this run. Named after the parent process: cargo starts all test
/// binaries of a run.
pub(crate) fn record() -> PathBuf {
    [env!("CARGO_TARGET_TMPDIR"), &format!("skipped-{}", parent_id())].iter().collect()
}
