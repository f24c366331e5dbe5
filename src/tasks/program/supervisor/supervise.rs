//! The supervisor process: starts a program, stops it, and exits after its last descendant.

use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process_group, set_child_subreaper, wait,
};
use rustix::thread::set_name;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use super::leash::Leash;
use super::memory::MemoryWatch;
use super::processes::{
    KILL_PAUSE, Killer, Look, MAX_KILL_PAUSE, children, descendants, stop_trees,
};
use super::protocol::{Command, Head, MainEnd, Report};
use super::stage::SecondStage;

/// Grace periods longer than this make no difference.
const MAX_GRACE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads an order from standard input, runs its program, and returns when all processes are gone.
pub(crate) fn supervise() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the log of the task.
            eprintln!("task-server: cannot supervise the program: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    set_name(c"task-supervisor")?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let _ignored = ignored_signals()?;
        let child_ended = signal(SignalKind::child())?;
        // Loads while the order arrives.
        let stage = SecondStage::spawn();
        let mut leash = Leash::new(socket)?;
        let head = leash.head().await?;
        let mut supervisor = Supervisor::new(leash, child_ended, &head);
        // Held until all processes are gone.
        let _lock = match supervisor.prepare(stage, &head).await {
            Ok((stage, lock)) => {
                supervisor.watch(stage).await;
                Some(lock)
            }
            Err(error) => {
                supervisor.not_started(error.to_string());
                None
            }
        };
        supervisor.kill_all().await;
        supervisor.leash.report(&Report::Gone);
        Ok(())
    })
}

/// Installs handlers that do nothing: only the leash decides when to stop. Exec resets handled signals to
/// their default action, unlike signals that the server was started with as ignored.
fn ignored_signals() -> io::Result<Vec<Signals>> {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::quit(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    kinds.into_iter().map(signal).collect()
}

/// A program and its descendants.
#[derive(Debug)]
struct Supervisor {
    leash: Leash,
    child_ended: Signals,
    /// First the second stage, then the program.
    main: Option<Pid>,
    started: bool,
    main_end: Option<MainEnd>,
    /// Time from SIGTERM to SIGKILL after the program has failed.
    grace: Duration,
    /// Time of SIGKILL, once the processes are asked to stop.
    deadline: Option<Instant>,
    memory: Option<MemoryWatch>,
}

impl Supervisor {
    fn new(leash: Leash, child_ended: Signals, head: &Head) -> Self {
        let Head { memory, grace, .. } = *head;
        let memory = memory.map(MemoryWatch::new);
        Self {
            leash,
            child_ended,
            main: None,
            started: false,
            main_end: None,
            grace,
            deadline: None,
            memory,
        }
    }

    /// Takes the lock, then passes the order on. The program does not run without the lock.
    async fn prepare(
        &mut self,
        stage: io::Result<SecondStage>,
        head: &Head,
    ) -> io::Result<(SecondStage, File)> {
        let mut stage = stage?;
        self.main = Some(stage.pid());
        let lock = self.leash.lock(Path::new(&head.lock))?;
        self.leash.forward(head.body, &mut stage).await?;
        Ok((stage, lock))
    }

    /// Returns when no process is left, or when the remaining ones must be killed.
    async fn watch(&mut self, stage: SecondStage) {
        let mut starting = pin!(stage.started());
        loop {
            let memory_look = self.memory.as_ref().map(MemoryWatch::next);
            tokio::select! {
                started = &mut starting, if !self.started => match started {
                    Ok(()) => self.started(),
                    Err(reason) => return self.not_started(reason),
                },
                command = self.leash.next() => match command {
                    Some(Command::Stop { grace_ms }) => self.stop(Duration::from_millis(grace_ms)),
                    None => return,
                },
                _ = self.child_ended.recv() => {}
                () = at(self.deadline) => return,
                () = at(memory_look) => if self.exceeds_memory() { return },
            }
            // A second stage that fails is reaped after its reason has arrived.
            if self.started && !self.reap_and_react() {
                return;
            }
        }
    }

    fn started(&mut self) {
        self.started = true;
        self.leash.report(&Report::Started { pid: self.main.map_or(0, Pid::as_raw_pid) });
        if self.deadline.is_some() {
            self.terminate();
        }
    }

    fn not_started(&self, error: String) {
        self.leash.report(&Report::FailedToStart { error });
    }

    /// Sends SIGTERM, and sets the time of SIGKILL or moves it forward. [`Self::started`] sends the SIGTERM
    /// if the program does not run yet.
    fn stop(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace.min(MAX_GRACE);
        match self.deadline {
            Some(earlier) => self.deadline = Some(deadline.min(earlier)),
            None => {
                self.deadline = Some(deadline);
                if self.started && !grace.is_zero() {
                    self.terminate();
                }
            }
        }
    }

    /// Sends SIGTERM to the process group of the program, if a descendant is still in it: an empty group's
    /// id may belong to another program.
    fn terminate(&self) {
        if let Some(group) = self.main
            && descendants().iter().any(|process| process.group == self.main)
        {
            // Fails if the group has ended since.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }

    fn exceeds_memory(&mut self) -> bool {
        let used = self.memory.as_mut().and_then(MemoryWatch::look);
        used.inspect(|bytes| self.leash.report(&Report::MemoryExceeded { bytes: *bytes })).is_some()
    }

    /// Reaps ended processes. Stops the remaining ones if the program has failed. Returns whether a process
    /// is left.
    fn reap_and_react(&mut self) -> bool {
        let was_running = self.main_end.is_none();
        let left = self.reap();
        if let Some(end) = self.main_end
            && was_running
            && left
        {
            match end {
                MainEnd::Code(0) => {
                    self.leash.report(&Report::Waiting { processes: descendants().len() });
                }
                MainEnd::Code(_) | MainEnd::Signal(_) => self.stop(self.grace),
            }
        }
        left
    }

    /// Reaps ended processes, and reports the end of the program. Returns whether a process is left.
    fn reap(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                // A later process may have the same pid.
                Ok(Some((pid, status))) if Some(pid) == self.main && self.main_end.is_none() => {
                    let end = main_end(status);
                    self.main_end = Some(end);
                    self.leash.report(&Report::MainEnded(end));
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return true,
                // ECHILD, the only other error.
                Err(_) => return false,
            }
        }
    }

    /// Kills all processes. Returns when none is left.
    async fn kill_all(&mut self) {
        let mut killer = Killer::default();
        let mut pause = KILL_PAUSE;
        // Reaping before each look keeps the list of children short.
        while self.reap() {
            let look = killer.look(stop_trees(children(getpid())));
            pause = match look {
                Look::New => continue,
                Look::Nothing => KILL_PAUSE,
                Look::Killed => pause,
            };
            let _ = timeout(pause, self.child_ended.recv()).await;
            pause = (2 * pause).min(MAX_KILL_PAUSE);
        }
    }
}

fn main_end(status: WaitStatus) -> MainEnd {
    match status.terminating_signal() {
        Some(signal) => MainEnd::Signal(signal),
        None => MainEnd::Code(status.exit_status().unwrap_or_default()),
    }
}

/// Resolves at the given time, or never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
