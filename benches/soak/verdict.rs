//! Whether the server has stayed as it was.

use crate::samples::Sample;

/// What the last quarter may be above the second one, beside a tenth of it.
const MEMORY_SLACK: u64 = 8_000_000;
/// The connections that read the database are opened when they are needed.
const FILES_SLACK: u64 = 16;
const THREADS_SLACK: u64 = 4;
const DATABASE_SLACK: u64 = 8_000_000;
/// The write-ahead log is cut back to 64 MiB, and grows beyond that only while somebody reads.
const LOG_LIMIT: u64 = 2 * 64 * 1024 * 1024;

/// What grew, each in a sentence. The first quarter is left out: it fills caches and the database
/// up to the retention.
pub(crate) fn faults(idle: &Sample, samples: &[Sample], after: &Sample) -> Vec<String> {
    let quarter = samples.len() / 4;
    let (second, last) = (&samples[quarter..2 * quarter], &samples[3 * quarter..]);
    let mut faults = Vec::new();
    for (what, of, slack) in [
        ("memory", (|it: &Sample| it.memory) as fn(&Sample) -> u64, MEMORY_SLACK),
        ("open files", |it| it.files, FILES_SLACK),
        ("threads", |it| it.threads, THREADS_SLACK),
        ("the database", |it| it.database, DATABASE_SLACK),
    ] {
        let (early, late) = (median(second, of), median(last, of));
        println!("{what}: median {early} in the second quarter, {late} in the last");
        if late > early + early / 10 + slack {
            faults.push(format!("{what} grew from {early} to {late}"));
        }
    }
    let log = samples.iter().map(|sample| sample.log).max().unwrap_or(0);
    if log > LOG_LIMIT {
        faults.push(format!("the write-ahead log grew to {log} bytes"));
    }
    if after.files > idle.files + FILES_SLACK {
        let (before, after) = (idle.files, after.files);
        faults.push(format!("{after} files are open after the load, {before} were before"));
    }
    let progress = last.last().zip(last.first()).map_or(0, |(end, begin)| end.tasks - begin.tasks);
    if progress == 0 {
        faults.push("no task ended in the last quarter".to_owned());
    }
    faults
}

fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<_> = samples.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}
