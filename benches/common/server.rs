//! The measured server process and its resource usage (Linux).

#[path = "../../tests/integration/common/process.rs"]
mod process;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use process::Process;
pub(crate) use process::proc_number;

/// The binary built for this bench.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_task-server");

/// Unit of CPU time in `/proc`, in seconds.
const TICK: f64 = 0.01;

/// A running server. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    address: String,
    folder: TempDir,
}

/// Creates an empty folder on the disk of the build, because `/tmp` may be in memory.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

impl Server {
    /// Starts the server in an empty folder on a free port.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_in(folder(), flags)
    }

    /// Starts the server in `folder` on a free port.
    pub(crate) fn start_in(folder: TempDir, flags: &[&str]) -> Self {
        let flags = [&["--listen", "127.0.0.1:0"], flags].concat();
        Self::start_program(Path::new(BINARY), folder, &flags)
    }

    /// Starts a program that logs its address like the server does. Prints its log except INFO lines.
    pub(crate) fn start_program(program: &Path, folder: TempDir, args: &[&str]) -> Self {
        let print = |line: String| {
            if !line.contains(" INFO ") {
                eprintln!("{line}");
            }
        };
        let process = Process::spawn(process::command(program, folder.path(), args, &[]), print);
        let address = process.wait_for_address();
        Self { process, address, folder }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Stops the server with SIGTERM; returns its folder.
    pub(crate) fn stop(mut self) -> TempDir {
        self.process.terminate();
        let status = self.process.wait_exit();
        assert!(status.success(), "the server stopped with {status}");
        self.folder
    }

    /// CPU time of all threads so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.id())
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        1024 * proc_number(self.id(), "status", "VmRSS:").unwrap()
    }

    /// Peak resident memory in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.process.peak_memory().unwrap()
    }

    /// Number of write system calls so far, to files and sockets.
    pub(crate) fn writes(&self) -> u64 {
        proc_number(self.id(), "io", "syscw:").unwrap()
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

/// CPU time of all threads of a process so far.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Skips the program name: it stands in parentheses and may contain spaces.
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
    ticks.sum::<f64>() * TICK
}
