//! Keeps the server at full load for a long time and checks that its resource usage stays stable:
//! memory, open files, threads, database and write-ahead log (Linux).
//!
//! `cargo bench --bench soak` takes ten minutes, or `SOAK_SECONDS`. `SOAK_SERVER` names a binary
//! other than the one built for this bench.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod clients;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each bench uses only part of it")]
mod common;
mod samples;
mod session;
mod verdict;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::server::{BINARY, Server, folder};
use samples::{Sample, Sampler};
use session::Session;

/// Number of samples in all.
const SAMPLES: u32 = 200;
/// Number of rows in the table.
const ROWS: usize = 12;

fn main() -> ExitCode {
    if !env::args().any(|arg| arg == "--bench") {
        println!("soaks only when run by cargo bench");
        return ExitCode::SUCCESS;
    }
    let seconds = env::var("SOAK_SECONDS").map_or(600, |text| text.parse().unwrap());
    let server = env::var_os("SOAK_SERVER").map_or_else(|| BINARY.into(), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, soak(&server, Duration::from_secs(seconds)))
}

async fn soak(binary: &Path, duration: Duration) -> ExitCode {
    let folder = folder();
    let path = folder.path().to_owned();
    // Far shorter than the run, so that the size of the database settles.
    let retention = format!("{}s", (duration.as_secs() / 40).max(3));
    let flags = ["--listen", "127.0.0.1:0", "--retention", &retention];
    let server = Server::start_program(binary, folder, &flags);
    println!("soaking {} for {duration:?}, --retention {retention}", binary.display());

    let session = Session::new(server.address(), &path);
    let sampler = Sampler::new(server.id(), &path);
    let idle = sampler.take(Duration::ZERO, 0);
    let clients = clients::spawn(&session);
    let begin = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    while begin.elapsed() < duration {
        tokio::time::sleep(duration / SAMPLES).await;
        samples.push(sampler.take(begin.elapsed(), session.done()));
    }
    session.end();
    for client in clients {
        client.await.unwrap();
    }
    session.clear().await;
    let rest = session.until_at_rest().await;
    let after = sampler.take(begin.elapsed(), session.done());
    let cores = server.cpu_seconds() / after.at.as_secs_f64();
    server.stop();

    print!("{}", samples::table(&idle, &samples, &after, ROWS));
    println!("{}", session.counts());
    println!(
        "{cores:.2} cores in use, slowest answer {:.1} s, at rest {rest:.1} s after the load",
        session.slowest()
    );
    let faults = [verdict::faults(&idle, &samples, &after), session.faults()].concat();
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    if faults.is_empty() {
        println!("passed: everything is level");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
