//! Measures the server against a bare one, turn by turn on this machine, and holds the ratios
//! against what they should be.
//!
//! `cargo bench --bench throughput -- NAME` measures only what has `NAME` in its name.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod bare;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod disk;
mod footprint;
mod history;
mod lists;
mod load;
mod reads;
mod report;
mod requests;
mod single;
mod submits;

use history::Million;
use report::{Report, Row};

/// As the server has it, so that a bare one is its equal.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(bare::ARGUMENT) {
        return bare::serve(args.next().unwrap());
    }
    let args: Vec<_> = std::env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return println!("measures only when run by cargo bench");
    }
    let wanted = args.into_iter().filter(|arg| !arg.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Bench { wanted, names: Vec::new(), report: Report::new() }.run());
}

struct Bench {
    /// Parts of names; everything is wanted if there are none.
    wanted: Vec<String>,
    /// What could be wanted.
    names: Vec<&'static str>,
    report: Report,
}

impl Bench {
    async fn run(mut self) {
        disk::print_sync_time();
        let million = &Million::default();
        let what = "whole tasks, 64 connections";
        self.measure(what, async || submits::whole(what, 64, &[], 0.22).await).await;
        let what = "whole tasks, 256 connections, --max-running 256";
        let flags = ["--max-running", "256"];
        self.measure(what, async || submits::whole(what, 256, &flags, 0.35).await).await;
        let what = "accepted submits, 64 connections";
        self.measure(what, async || submits::accepted(what, 64, 0.45).await).await;
        let what = "GET of a live task, 64 connections";
        self.measure(what, async || reads::live(what, 0.85).await).await;
        let what = "GET of finished tasks, 64 connections";
        self.measure(what, async || reads::finished(what, million, 0.3).await).await;
        let what = "first page of 1,000,000 tasks";
        self.measure(what, async || lists::first_pages(what, million, 1.2).await).await;
        let what = "whole tasks after 1,000,000 others";
        self.measure(what, async || submits::with_history(what, million, 0.9).await).await;
        let what = "idle server, POST to completed";
        self.measure(what, async || single::to_completed(what).await).await;
        let what = "1,000,000 progress reports of a task";
        self.measure(what, async || single::reports(what, 0.3).await).await;
        let what = "boot with 1,000,000 finished and 100,000 pending tasks";
        self.measure(what, async || footprint::boot(what, million, 0.5, 80_000_000).await).await;
        let what = "memory of an idle, empty server";
        self.measure(what, async || footprint::idle(what, 20_000_000).await).await;
        let what = "size of the binary";
        self.measure(what, async || footprint::binary(what, 40_000_000)).await;
        if self.report.is_empty() {
            return println!("nothing of that name, expected a part of\n{}", self.names.join("\n"));
        }
        println!("\n{}", self.report);
    }

    async fn measure(&mut self, what: &'static str, rows: impl AsyncFnOnce() -> Vec<Row>) {
        self.names.push(what);
        if self.wanted.is_empty() || self.wanted.iter().any(|part| what.contains(part)) {
            eprintln!("measuring {what}");
            for row in rows().await {
                self.report.push(row);
            }
        }
    }
}
