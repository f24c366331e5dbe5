//! The last of the tests by name, so by time: says which ones were skipped.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a test uses a part of this, and fails by panicking"
)]

#[path = "integration/common/skips.rs"]
mod skips;

use std::fs;
use std::io::Write;

#[test]
fn skipped_tests_are_seen() {
    // Past the capture of the harness, which is for `println!` and its like.
    let skips = take_skips();
    if !skips.is_empty() {
        std::io::stderr().write_all(format!("\n{skips}").as_bytes()).unwrap();
    }
}

/// Takes the lines of this run.
fn take_skips() -> String {
    let lines = fs::read_to_string(skips::record()).unwrap_or_default();
    let _ = fs::remove_file(skips::record());
    lines
}
