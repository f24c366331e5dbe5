//! The server's side of a supervised program.

use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use super::children::{OwnChild, kill_inherited};
use super::protocol::{self, MainEnd, NAME, Order, Report, SUPERVISE, line};

/// This executable, even if its file has been replaced since the start.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Handle of a program and its descendants. Dropping it kills them at once.
///
/// A tokio task, [`follow`], owns the supervisor and the leash. It outlives the handle and reaps the
/// supervisor. It writes `phase`; callers read it.
#[derive(Debug)]
pub(crate) struct Supervised {
    stops: mpsc::UnboundedSender<Duration>,
    phase: watch::Receiver<Phase>,
}

/// State of a supervised program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Not running yet.
    Starting,
    /// Running, with this pid.
    Running(i32),
    /// The program has ended well; this number of its descendants still run.
    Waiting(usize),
    /// No process is left. The supervisor is reaped.
    Ended(Ended),
}

/// End of a program with all its descendants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// The program could not be started, for this reason.
    NotStarted(String),
    /// Exit code of the program.
    Code(i32),
    /// Signal that killed the program.
    Signal(i32),
    /// Killed for exceeding the memory limit. Memory in use, in bytes.
    MemoryExceeded(u64),
    /// Killed because the supervisor was killed.
    SupervisorLost,
}

impl Supervised {
    /// Starts a supervisor, which is this executable with the verb [`SUPERVISE`], for a program. Returns the
    /// standard output and standard error of the program too.
    ///
    /// # Errors
    /// If the supervisor cannot be started. A program that cannot be started ends as [`Ended::NotStarted`].
    pub(crate) async fn start(order: Order) -> io::Result<(Self, Receiver, Receiver)> {
        // Blocks until the exec of the new process.
        spawn_blocking(|| Self::spawn(Path::new(OWN_PROGRAM), order))
            .await
            .map_err(io::Error::other)?
    }

    fn spawn(exe: &Path, order: Order) -> io::Result<(Self, Receiver, Receiver)> {
        let order = order.encode()?;
        let (leash, supervisor_end) = StdUnixStream::pair()?;
        leash.set_nonblocking(true)?;
        let leash = UnixStream::from_std(leash)?;
        let (stdout, stdout_writer) = io::pipe()?;
        let (stderr, stderr_writer) = io::pipe()?;
        let (stdout, stderr) = (receiver(stdout)?, receiver(stderr)?);
        let mut command = Command::new(exe);
        command
            .arg0(NAME)
            .arg(SUPERVISE)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(supervisor_end)))
            .stdout(stdout_writer)
            .stderr(stderr_writer)
            // Ctrl-C in the terminal signals the server's process group.
            .process_group(0);
        let supervisor = OwnChild::spawn(&mut command)?;
        let (stops, stop_requests) = mpsc::unbounded_channel();
        let (phase, phases) = watch::channel(Phase::Starting);
        tokio::spawn(follow(supervisor, leash, order, stop_requests, phase));
        Ok((Self { stops, phase: phases }, stdout, stderr))
    }

    /// Sends SIGTERM to the process group of the program, and SIGKILL to all descendants after `grace`. A
    /// second call can only shorten the grace.
    pub(crate) fn stop(&self, grace: Duration) {
        // Fails only when all processes are gone.
        let _ = self.stops.send(grace);
    }

    /// Returns a receiver of the phase, which outlives this handle.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    /// Resolves when all processes are gone and the supervisor is reaped.
    pub(crate) async fn ended(&self) -> Ended {
        let mut phase = self.phase();
        match phase.wait_for(|phase| matches!(phase, Phase::Ended(_))).await.as_deref() {
            Ok(Phase::Ended(ended)) => ended.clone(),
            // The runtime is shutting down.
            Ok(_) | Err(_) => Ended::SupervisorLost,
        }
    }
}

fn receiver(pipe: PipeReader) -> io::Result<Receiver> {
    Receiver::from_owned_fd(pipe.into())
}

/// Holds the leash and reads the reports until the supervisor and all processes are gone.
async fn follow(
    supervisor: OwnChild,
    leash: UnixStream,
    order: Vec<u8>,
    mut stops: mpsc::UnboundedReceiver<Duration>,
    phase: watch::Sender<Phase>,
) {
    let (reports, mut leash) = leash.into_split();
    // Fails only if the supervisor is dead. Then the reports end too.
    let _ = leash.write_all(&order).await;
    drop(order);
    let mut leash = Some(leash);
    let mut reports = BufReader::new(reports).lines();
    let mut end = End::default();
    loop {
        tokio::select! {
            grace = stops.recv(), if leash.is_some() => match (grace, &mut leash) {
                (Some(grace), Some(leash)) => send_stop(leash, grace).await,
                // The handle was dropped. Dropping the leash closes it.
                _ => leash = None,
            },
            report = reports.next_line() => {
                let Ok(Some(report)) = report else { break };
                match serde_json::from_str(&report) {
                    Ok(report) => end.take_in(report, &phase),
                    Err(error) => tracing::error!(%error, report, "unknown report of a supervisor"),
                }
            }
        }
    }
    supervisor.reaped().await;
    if !end.gone {
        kill_inherited().await;
    }
    phase.send_replace(Phase::Ended(end.conclude()));
}

async fn send_stop(leash: &mut OwnedWriteHalf, grace: Duration) {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    if let Ok(stop) = line(&protocol::Command::Stop { grace_ms }) {
        // As above.
        let _ = leash.write_all(&stop).await;
    }
}

/// Reports about the end.
#[derive(Debug, Default)]
struct End {
    not_started: Option<String>,
    memory_exceeded: Option<u64>,
    main: Option<MainEnd>,
    gone: bool,
}

impl End {
    fn take_in(&mut self, report: Report, phase: &watch::Sender<Phase>) {
        match report {
            Report::Started { pid } => _ = phase.send_replace(Phase::Running(pid)),
            Report::Waiting { processes } => _ = phase.send_replace(Phase::Waiting(processes)),
            Report::FailedToStart { error } => self.not_started = Some(error),
            Report::MainEnded(end) => self.main = Some(end),
            Report::MemoryExceeded { bytes } => self.memory_exceeded = Some(bytes),
            Report::Gone => self.gone = true,
        }
    }

    fn conclude(self) -> Ended {
        let Self { not_started, memory_exceeded, main, gone } = self;
        if !gone {
            return Ended::SupervisorLost;
        }
        match (not_started, memory_exceeded, main) {
            (Some(reason), _, _) => Ended::NotStarted(reason),
            (None, Some(bytes), _) => Ended::MemoryExceeded(bytes),
            (None, None, Some(MainEnd::Code(code))) => Ended::Code(code),
            (None, None, Some(MainEnd::Signal(signal))) => Ended::Signal(signal),
            (None, None, None) => Ended::SupervisorLost,
        }
    }
}
