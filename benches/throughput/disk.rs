//! What the disk itself takes to make a write durable.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::common::server::folder;
use crate::report::quantile;

const APPENDS: usize = 500;
const BYTES: [u8; 4096] = [7; 4096];

/// The median of an append of 4 KiB that is followed by an `fdatasync`.
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
