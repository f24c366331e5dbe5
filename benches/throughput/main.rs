//! Measures the server against a minimal one, in turns on this machine, and compares the ratios
//! with targets.
//!
//! `cargo bench --bench throughput -- NAME` runs only the measurements with `NAME` in their name;
//! `--against` compares with an older program, and `--filters` searches for slow lists.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod against;
mod args;
mod bare;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod disk;
mod filters;
mod footprint;
mod history;
mod lists;
mod load;
mod reads;
mod report;
mod requests;
mod single;
mod submits;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use history::Million;
use report::{Report, Row};

/// The server's allocator, for a fair comparison with the bare server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(bare::ARGUMENT) {
        bare::serve(words.next().unwrap());
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    if !args.bench {
        println!("measures only when run by cargo bench");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let met = runtime.block_on(async {
        disk::print_sync_time();
        if let Some(program) = &args.against {
            // Absolute, because each server runs in its own folder.
            against::run(std::path::absolute(program).unwrap(), &args).await
        } else if args.filters {
            filters::run(&args).await
        } else {
            Bench { args, names: Vec::new(), report: Report::new() }.run().await;
            true
        }
    });
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Bench {
    args: Args,
    /// Names of all measurements.
    names: Vec<&'static str>,
    report: Report,
}

impl Bench {
    async fn run(mut self) {
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
        if self.args.wants(what) {
            eprintln!("measuring {what}");
            for row in rows().await {
                self.report.push(row);
            }
        }
    }
}
