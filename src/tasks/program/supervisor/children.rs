//! The server's children: its own ones, and those inherited from killed supervisors.

use std::collections::BTreeSet;
use std::io;
use std::process::{Child, Command};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustix::process::{Pid, RawPid, WaitOptions, getpid, set_child_subreaper, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::processes::{KILL_PAUSE, Killer, Look, MAX_KILL_PAUSE, children, stop_trees};

/// Time between two attempts to reap a child. SIGCHLD ends it early.
const REAP_PAUSE: Duration = Duration::from_millis(50);

/// The server's own children; all others are inherited.
///
/// Starting or reaping a child takes the read lock around the system call and the change of `pids`, so
/// several children can start at once. A search for inherited children takes the write lock, so that it
/// sees each own child in `pids`.
static OWN: RwLock<Mutex<Own>> =
    RwLock::new(Mutex::new(Own { subreaper: false, pids: BTreeSet::new() }));

#[derive(Debug)]
struct Own {
    /// If false, the server inherits nothing, and unknown children are left alone.
    subreaper: bool,
    pids: BTreeSet<RawPid>,
}

/// Makes this process inherit the descendants of killed supervisors. Call it at start: existing children,
/// which an exec may leave, count as own ones.
pub(crate) fn become_subreaper() {
    let own = OWN.write();
    let mut own = own.lock();
    match set_child_subreaper(Some(getpid())) {
        Ok(()) => own.subreaper = true,
        Err(error) => tracing::warn!(%error, "cannot inherit the processes of killed supervisors"),
    }
    own.pids.extend(children(getpid()).into_iter().map(Pid::as_raw_pid));
}

/// A child that the server has started.
#[derive(Debug)]
pub(super) struct OwnChild(Child);

impl OwnChild {
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        let own = OWN.read();
        let child = command.spawn()?;
        own.lock().pids.insert(Pid::from_child(&child).as_raw_pid());
        Ok(Self(child))
    }

    /// Resolves when the child has ended and is reaped.
    pub(super) async fn reaped(mut self) {
        // Needs neither a thread nor a descriptor: the program may have exhausted both.
        let mut ended = signal(SignalKind::child()).ok();
        while !self.reap() {
            match &mut ended {
                Some(ended) => _ = timeout(REAP_PAUSE, ended.recv()).await,
                None => sleep(REAP_PAUSE).await,
            }
        }
    }

    /// Reaps the child if it has ended. Returns whether it is gone.
    fn reap(&mut self) -> bool {
        let own = OWN.read();
        if let Ok(None) = self.0.try_wait() {
            return false;
        }
        own.lock().pids.remove(&Pid::from_child(&self.0).as_raw_pid());
        true
    }
}

/// Kills all inherited processes. Resolves when they are gone.
///
/// The kernel moves the children of a killed supervisor to the server before the server can reap the
/// supervisor. From then on, every process of the task is below an inherited child, however it forks.
pub(super) async fn kill_inherited() {
    /// Guards the reaping of inherited children: their pids stay valid from the look to the signal.
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut killer = Killer::default();
    let mut pause = KILL_PAUSE;
    loop {
        let mut inherited = inherited();
        // Ended ones count: after the list was read, they may have left a child to the server.
        if inherited.is_empty() {
            return;
        }
        inherited.retain(|pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None)));
        // Blocks this thread for milliseconds: there may be no other one, as above.
        pause = match killer.look(stop_trees(inherited)) {
            Look::New => {
                yield_now().await;
                continue;
            }
            Look::Nothing => KILL_PAUSE,
            Look::Killed => pause,
        };
        sleep(pause).await;
        pause = (2 * pause).min(MAX_KILL_PAUSE);
    }
}

/// Returns the inherited children, ended ones included.
fn inherited() -> Vec<Pid> {
    let own = OWN.write();
    let own = own.lock();
    if !own.subreaper {
        return Vec::new();
    }
    let mut inherited = children(getpid());
    inherited.retain(|pid| !own.pids.contains(&pid.as_raw_pid()));
    inherited
}
