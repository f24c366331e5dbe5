//! Checks that resource usage stayed stable.

use crate::samples::Sample;

/// Allowed growth from the second to the last quarter, in addition to a tenth.
const MEMORY_SLACK: u64 = 8_000_000;
/// Read connections to the database are opened on demand.
const FILES_SLACK: u64 = 16;
const THREADS_SLACK: u64 = 4;
const DATABASE_SLACK: u64 = 8_000_000;
/// The write-ahead log is truncated to 64 MiB, and grows beyond that only during reads.
const LOG_LIMIT: u64 = 2 * 64 * 1024 * 1024;

/// Resources that grew, one sentence each. Skips the first quarter, which fills caches and the
/// database up to its retention.
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
