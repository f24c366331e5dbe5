//! Resource usage of the server at one moment, from the kernel and the file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::server::proc_number;
use crate::common::table::Table;

#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Time since the start of the load.
    pub(crate) at: Duration,
    /// Number of ended tasks so far.
    pub(crate) tasks: u64,
    /// Resident memory in bytes.
    pub(crate) memory: u64,
    /// Number of open file descriptors.
    pub(crate) files: u64,
    pub(crate) threads: u64,
    /// Size of the database in bytes.
    pub(crate) database: u64,
    /// Size of the write-ahead log in bytes.
    pub(crate) log: u64,
}

#[derive(Debug)]
pub(crate) struct Sampler {
    process: u32,
    database: PathBuf,
    log: PathBuf,
}

impl Sampler {
    /// `folder` is the folder of the server's database.
    pub(crate) fn new(process: u32, folder: &Path) -> Self {
        Self { process, database: folder.join("tasks.db"), log: folder.join("tasks.db-wal") }
    }

    pub(crate) fn take(&self, at: Duration, tasks: u64) -> Sample {
        let number = |name: &str| proc_number(self.process, "status", name).unwrap();
        let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
        Sample {
            at,
            tasks,
            memory: 1024 * number("VmRSS:"),
            files: fs::read_dir(format!("/proc/{}/fd", self.process)).unwrap().count() as u64,
            threads: number("Threads:"),
            database: size(&self.database),
            log: size(&self.log),
        }
    }
}

/// The idle sample, some samples under load, and the final one.
pub(crate) fn table(idle: &Sample, samples: &[Sample], after: &Sample, rows: usize) -> Table<7> {
    let mut table = Table::new(["", "tasks", "memory MB", "files", "threads", "db MB", "WAL MB"]);
    let mut push = |name: String, sample: &Sample| {
        let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        table.push([
            name,
            sample.tasks.to_string(),
            megabytes(sample.memory),
            sample.files.to_string(),
            sample.threads.to_string(),
            megabytes(sample.database),
            megabytes(sample.log),
        ]);
    };
    push("before".to_owned(), idle);
    for row in 1..=rows {
        let Some(sample) = (row * samples.len() / rows).checked_sub(1) else { continue };
        let sample = &samples[sample];
        push(format!("{:.0} s", sample.at.as_secs_f64()), sample);
    }
    push("after".to_owned(), after);
    table
}
