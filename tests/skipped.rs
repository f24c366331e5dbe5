//! Prints the skipped tests. Runs last because cargo runs test binaries in order of their names.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "only part of the module is used, and tests fail by panicking"
)]

#[path = "integration/common/skips.rs"]
mod skips;

use std::fs;
use std::io::Write;

#[test]
fn skipped_tests_are_seen() {
    // Bypasses the output capture of the test harness, which only covers `println!` and the like.
    let skips = take_skips();
    if !skips.is_empty() {
        std::io::stderr().write_all(format!("\n{skips}").as_bytes()).unwrap();
    }
}

/// Reads the skips of this run and deletes their file.
fn take_skips() -> String {
    let lines = fs::read_to_string(skips::record()).unwrap_or_default();
    let _ = fs::remove_file(skips::record());
    lines
}
