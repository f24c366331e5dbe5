//! Pillow in its own Python process.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A fresh process, so that its peak memory is due to its images.
pub(crate) struct Pillow {
    process: Child,
    jobs: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    pub(crate) version: String,
    pub(crate) peak_memory: u64,
}

impl Pillow {
    /// Starts Pillow; `None` if this machine has no Python with Pillow.
    pub(crate) fn start() -> Option<Self> {
        let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let mut command = Command::new(python);
        command.args(["-c", include_str!("pillow.py")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().ok()?;
        let jobs = process.stdin.take()?;
        let mut answers = BufReader::new(process.stdout.take()?).lines();
        match answers.next() {
            Some(Ok(version)) => Some(Self { process, jobs, answers, version, peak_memory: 0 }),
            _ => {
                let _ = process.wait();
                None
            }
        }
    }

    /// Resizes an image to 800 x 600; returns the seconds it took.
    pub(crate) fn run(&mut self, (input, output): (&Path, &Path)) -> f64 {
        writeln!(self.jobs, "{}\t{}", input.display(), output.display()).unwrap();
        let answer = self.answers.next().expect("Pillow failed").unwrap();
        let (seconds, peak) = answer.split_once(' ').unwrap();
        self.peak_memory = 1024 * peak.parse::<u64>().unwrap();
        seconds.parse().unwrap()
    }
}

impl Drop for Pillow {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
