//! Latency of durable writes on the disk itself.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::common::server::folder;
use crate::report::{milliseconds, quantile};

const APPENDS: usize = 500;
const BYTES: [u8; 4096] = [7; 4096];
/// Sync time up to which the targets are valid.
const FAST_ENOUGH: Duration = Duration::from_micros(300);

/// Median of appends of 4 KiB, each followed by an `fdatasync`.
pub(crate) fn sync_time() -> Duration {
    let folder = folder();
    let mut file = File::create(folder.path().join("appended")).unwrap();
    let append = |_| {
        let begin = Instant::now();
        file.write_all(&BYTES).unwrap();
        file.sync_data().unwrap();
        begin.elapsed()
    };
    let mut times: Vec<_> = (0..APPENDS).map(append).collect();
    quantile(&mut times, 0.5)
}

/// Prints the sync time of the disk and the load of the machine.
pub(crate) fn print_sync_time() {
    let time = sync_time();
    let remark = if time > FAST_ENOUGH { ", slower than the targets assume" } else { "" };
    println!("fdatasync after an append of 4 KiB: {} (p50){remark}", milliseconds(time));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load = load.split(' ').next().unwrap();
    let cores = std::thread::available_parallelism().unwrap();
    println!("cores: {cores}; load of the machine before this bench: {load}");
}
