//! A server in a process of its own, and what the kernel says of that process (Linux).

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;

use tempfile::TempDir;

/// The server that is measured.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_task-server");

/// The unit of CPU time in `/proc`, in seconds; the same on every Linux of today.
const TICK: f64 = 0.01;

/// A running server. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    address: String,
    folder: TempDir,
}

/// Killed when it is dropped.
#[derive(Debug)]
struct Process(Child);

/// An empty folder on the disk that the project is built on, as `/tmp` may be memory.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

impl Server {
    /// Starts the server in an empty folder, on a port that the system picks.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_in(folder(), flags)
    }

    /// Starts the server in this folder.
    pub(crate) fn start_in(folder: TempDir, flags: &[&str]) -> Self {
        let flags = [&["--listen", "127.0.0.1:0"], flags].concat();
        Self::start_program(Path::new(BINARY), folder, &flags)
    }

    /// Starts any program that says where it listens in the way that the server does.
    pub(crate) fn start_program(program: &Path, folder: TempDir, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TASK_SERVER_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.args(args).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = address(&mut log);
        thread::spawn(move || {
            let lines = log.map_while(Result::ok);
            lines.filter(|line| !line.contains(" INFO ")).for_each(|line| eprintln!("{line}"));
        });
        Self { process: Process(child), address, folder }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Ends the server as a service manager would; returns its folder.
    pub(crate) fn stop(mut self) -> TempDir {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.process.0.wait().unwrap().success(), "the server did not stop well");
        self.folder
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.id())
    }

    /// Bytes of physical memory that it has now.
    pub(crate) fn memory(&self) -> u64 {
        1024 * self.number("status", "VmRSS:")
    }

    /// The most bytes of physical memory that it ever had.
    pub(crate) fn peak_memory(&self) -> u64 {
        1024 * self.number("status", "VmHWM:")
    }

    /// How often it has called the kernel to write, be it to a file or to a socket.
    pub(crate) fn writes(&self) -> u64 {
        self.number("io", "syscw:")
    }

    /// Its number among the processes.
    pub(crate) fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// The number behind this name in one of the process's files in `/proc`.
    fn number(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if the process has ended already, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU time of all threads of a process so far.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name of the program, in parentheses, may have spaces of its own.
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
    ticks.sum::<f64>() * TICK
}

/// Reads the log up to the line that tells where the server listens.
fn address(log: &mut Lines<BufReader<ChildStderr>>) -> String {
    let mut said = String::new();
    for line in log.map_while(Result::ok) {
        if let Some((_, address)) = line.split_once("listening on http://") {
            return address.trim_end().to_owned();
        }
        said += &line;
        said.push('\n');
    }
    panic!("the server did not start:\n{said}");
}
