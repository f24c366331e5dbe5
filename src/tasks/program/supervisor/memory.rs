//! Memory use of the descendants of a supervisor.

use std::fs;
use std::time::Duration;

use rustix::param::page_size;
use rustix::process::Pid;
use tokio::time::Instant;

use super::processes::descendants;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Minimum pause, in durations of the last look: reading PSS of large processes is slow.
const PAUSE_PER_LOOK: u32 = 10;

/// Periodic check of a memory limit.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    limit: u64,
    next: Instant,
}

impl MemoryWatch {
    /// `limit` is in bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, next: Instant::now() + PAUSE }
    }

    /// Time of the next look.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Returns the memory in use by all descendants, in bytes, if it exceeds the limit.
    pub(super) fn look(&mut self) -> Option<u64> {
        let begin = Instant::now();
        // Confirmed by a second look: when a process ends, the PSS of those that share its pages grows, and
        // the sum of values from before and after that is too high.
        let used = exceeding(self.limit).and_then(|_| exceeding(self.limit));
        self.next = Instant::now() + PAUSE.max(begin.elapsed() * PAUSE_PER_LOOK);
        used
    }
}

/// Returns the memory in use by all descendants, in bytes, if it exceeds `limit`.
///
/// Forked processes share pages, which RSS counts once per process and PSS once in total. The kernel walks
/// all pages for PSS, so PSS is read only if the sum of RSS exceeds the limit.
fn exceeding(limit: u64) -> Option<u64> {
    let processes = descendants();
    let resident: u64 = processes.iter().filter_map(|process| rss(process.pid)).sum();
    if resident <= limit {
        return None;
    }
    // PSS of a non-dumpable process is unreadable. RSS is an upper bound.
    let memory =
        processes.iter().filter_map(|process| pss(process.pid).or_else(|| rss(process.pid)));
    let used = memory.sum();
    (used > limit).then_some(used)
}

fn rss(pid: Pid) -> Option<u64> {
    let pages = fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_pid())).ok()?;
    let resident: u64 = pages.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(resident * page_size() as u64)
}

fn pss(pid: Pid) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_pid())).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}
