//! Measures `tokenize` and `image_process` through the HTTP API, in turns with their reference
//! libraries: tiktoken-rs on one thread, and Pillow.
//!
//! `cargo bench --bench files -- NAME` runs only the measurements with `NAME` in their name. Pillow
//! is imported by the Python interpreter in the environment variable `PYTHON`, or `python3`.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each bench uses only part of it")]
mod common;
mod corpus;
mod images;
mod message_catalog;
mod picture;
mod pillow;
mod report;
mod task;
mod tokenize;

use report::{Report, Row};

/// The server's allocator, for a fair comparison with the reference in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return println!("measures only when run by cargo bench");
    }
    let wanted: Vec<_> = args.into_iter().filter(|arg| !arg.starts_with("--")).collect();
    let is_wanted =
        |what: &str| wanted.is_empty() || wanted.iter().any(|part| what.contains(part.as_str()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut report = Report::new();
    let mut push = |row: Row| report.push(row);
    runtime.block_on(async {
        tokenize::measure(&is_wanted, &mut push).await;
        images::measure(&is_wanted, &mut push).await;
    });
    println!("\n{report}");
}
