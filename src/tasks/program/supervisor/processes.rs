//! Process trees: finding and killing all processes.

use std::collections::HashSet;
use std::fs;
use std::mem;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, RawPid, Signal, getpid, pidfd_open, pidfd_send_signal};

/// Time for killed processes to end. It doubles up to the maximum, as a process in uninterruptible sleep may
/// take long.
pub(super) const KILL_PAUSE: Duration = Duration::from_millis(2);
pub(super) const MAX_KILL_PAUSE: Duration = Duration::from_millis(250);
/// Maximum number of looks through all processes while other programs keep starting new ones.
const MAX_LOOKS: usize = 1000;

/// A process as `/proc/PID/stat` describes it. Pid and start time identify it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Process {
    pid: Pid,
    start: u64,
}

/// Fields of `/proc/PID/stat`.
#[derive(Debug)]
struct Stat {
    parent: Option<Pid>,
    group: Option<Pid>,
    zombie: bool,
    single_threaded: bool,
    start: u64,
}

impl Stat {
    /// Returns `None` if there is no such process.
    fn read(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
        // The name in parentheses may contain parentheses.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Numbered from 3 on in proc_pid_stat(5).
        let field = |number: usize| fields.get(number - 3).copied();
        let pid = |number| field(number)?.parse().ok().and_then(Pid::from_raw);
        Some(Self {
            parent: pid(4),
            group: pid(5),
            zombie: field(3) == Some("Z"),
            single_threaded: field(20) == Some("1"),
            start: field(22)?.parse().ok()?,
        })
    }
}

/// A descendant.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) pid: Pid,
    pub(super) group: Option<Pid>,
}

/// Returns the living descendants of this process. A snapshot: processes start and end meanwhile.
pub(super) fn descendants() -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut open = children(getpid());
    while let Some(pid) = open.pop() {
        if let Some(stat) = Stat::read(pid) {
            open.extend(children_of(pid, &stat));
            if !stat.zombie {
                seen.push(Seen { pid, group: stat.group });
            }
        }
    }
    seen
}

/// Returns the children of a process, oldest first.
pub(super) fn children(pid: Pid) -> Vec<Pid> {
    if !*HAS_LISTS {
        return children_by_parent(pid);
    }
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid()));
    let tids = threads.into_iter().flatten().flatten().map(|thread| thread.file_name());
    tids.flat_map(|tid| list(pid, tid.to_str().unwrap_or_default())).collect()
}

/// Like [`children`], with fewer system calls for a single-threaded process.
fn children_of(pid: Pid, stat: &Stat) -> Vec<Pid> {
    if stat.single_threaded && *HAS_LISTS {
        return list(pid, &pid.to_string());
    }
    children(pid)
}

/// The kernel keeps a list of children for each thread, unless it lacks `CONFIG_PROC_CHILDREN`.
static HAS_LISTS: LazyLock<bool> =
    LazyLock::new(|| Path::new("/proc/thread-self/children").exists());

fn list(pid: Pid, tid: &str) -> Vec<Pid> {
    let path = format!("/proc/{pid}/task/{tid}/children");
    let list = fs::read_to_string(path).unwrap_or_default();
    let pids = list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter_map(Pid::from_raw).collect()
}

/// For kernels without those lists.
fn children_by_parent(parent: Pid) -> Vec<Pid> {
    let is_child = |pid: &Pid| Stat::read(*pid).is_some_and(|stat| stat.parent == Some(parent));
    all_pids().filter(is_child).collect()
}

/// Returns the pids of all processes of the system.
fn all_pids() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
}

/// Kills processes in two steps: SIGSTOP until no new ones appear, then SIGKILL.
///
/// SIGKILL alone may never catch up with a fork bomb, because killed processes make room for new ones under
/// the process limit. Stopped processes keep their place and do not fork, so the number of running ones
/// shrinks. A fork that SIGSTOP interrupts is either complete, so that the next look finds the child, or
/// repeated after SIGCONT.
#[derive(Debug, Default)]
pub(super) struct Killer {
    stopped: HashSet<Process>,
}

/// Result of a look of [`Killer`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// No process was found, or each one ended before it could be stopped.
    Nothing,
    /// New processes were found and stopped.
    New,
    /// Only stopped processes were found. They have been killed.
    Killed,
}

impl Killer {
    /// Takes the processes that were just found and stopped.
    pub(super) fn look(&mut self, found: Vec<Process>) -> Look {
        let before = self.stopped.len();
        self.stopped.extend(&found);
        if self.stopped.len() > before {
            return Look::New;
        }
        for process in &found {
            let is_same = |stat: &Stat| stat.start == process.start;
            if let Some((pidfd, _)) = open_if(process.pid, is_same) {
                // Fails if the process has ended.
                let _ = pidfd_send_signal(pidfd, Signal::KILL);
            }
        }
        if found.is_empty() { Look::Nothing } else { Look::Killed }
    }
}

/// Stops children of this process and their descendants. Returns the processes found.
pub(super) fn stop_trees(roots: Vec<Pid>) -> Vec<Process> {
    let this = getpid();
    let mut stopped = Vec::new();
    let mut open: Vec<_> = roots.into_iter().map(|root| (this, root)).collect();
    // Newest first: a process that forks and exits in a loop is at the end of the list.
    while let Some((parent, pid)) = open.pop() {
        let is_descendant = |stat: &Stat| stat.parent == Some(parent);
        let Some((pidfd, stat)) = open_if(pid, is_descendant) else { continue };
        if pidfd_send_signal(&pidfd, Signal::STOP).is_err() {
            continue;
        }
        stopped.push(Process { pid, start: stat.start });
        let children = children_of(pid, &stat);
        // The second success proves that the children are those of this process.
        if pidfd_send_signal(&pidfd, Signal::STOP).is_ok() {
            open.extend(children.into_iter().map(|child| (pid, child)));
        }
    }
    stopped
}

/// Opens a process if it passes a check.
///
/// The pidfd is opened before the check. If it accepts a signal afterwards, the pid was not reused in
/// between, so the check has seen the same process.
fn open_if(pid: Pid, check: impl FnOnce(&Stat) -> bool) -> Option<(OwnedFd, Stat)> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let stat = Stat::read(pid)?;
    check(&stat).then_some((pidfd, stat))
}

/// Kills all processes of the system that pass a check. Returns whether there were any.
///
/// A process that forks and exits in a loop must be found within its short life. So each look begins with
/// the newest processes, and skips those that an earlier look has rejected.
///
/// The search ends after two looks in a row that find nothing new while no process starts. One is not enough:
/// a child that has its pid already becomes visible later, and its parent may exit before it is checked.
pub(super) fn kill_if(check: impl Fn(Pid) -> bool) -> bool {
    let mut rejected = HashSet::new();
    let mut killer = Killer::default();
    let mut newest = newest_pid();
    let mut quiet = 0;
    for _ in 0..MAX_LOOKS {
        let look = killer.look(stop_if(&check, &mut rejected));
        let before = mem::replace(&mut newest, newest_pid());
        quiet = if look != Look::New && newest == before { quiet + 1 } else { 0 };
        if quiet == 2 {
            break;
        }
        if newest < before {
            // Pids wrapped around: rejected ones may be reused.
            rejected.clear();
        }
    }
    !killer.stopped.is_empty()
}

/// Stops processes that pass a check. Adds all others to `rejected`.
fn stop_if(check: impl Fn(Pid) -> bool, rejected: &mut HashSet<Pid>) -> Vec<Process> {
    let mut stopped = Vec::new();
    for pid in newest_first(all_pids()) {
        if rejected.contains(&pid) {
            continue;
        }
        if !check(pid) {
            rejected.insert(pid);
        } else if let Some((pidfd, stat)) = open_if(pid, |_| check(pid))
            && pidfd_send_signal(pidfd, Signal::STOP).is_ok()
        {
            stopped.push(Process { pid, start: stat.start });
        }
    }
    stopped
}

fn newest_first(pids: impl Iterator<Item = Pid>) -> Vec<Pid> {
    let mut pids: Vec<_> = pids.collect();
    let newest = newest_pid().unwrap_or_default();
    // Pids above the newest one are from before the last wrap-around.
    pids.sort_unstable_by_key(|pid| newest.wrapping_sub(pid.as_raw_pid()).cast_unsigned());
    pids
}

/// Returns the pid of the process or thread that started last.
fn newest_pid() -> Option<RawPid> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    load.split_ascii_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeping_child() -> Child {
        Command::new("sleep").arg("100").spawn().unwrap()
    }

    #[test]
    fn both_ways_find_the_same_children() {
        let mut child = sleeping_child();
        let pid = Pid::from_child(&child);
        assert!(children(getpid()).contains(&pid));
        assert!(children_by_parent(getpid()).contains(&pid));
        assert!(descendants().iter().any(|seen| seen.pid == pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children_by_parent(getpid()).contains(&pid));
    }

    #[test]
    fn a_process_below_the_expected_parent_is_killed() {
        let mut child = sleeping_child();
        let pid = Pid::from_child(&child);
        assert!(open_if(pid, |stat| stat.parent == Some(pid)).is_none());
        let mut killer = Killer::default();
        assert_eq!(killer.look(stop_trees(vec![pid])), Look::New);
        assert_eq!(killer.look(stop_trees(vec![pid])), Look::Killed);
        assert!(!child.wait().unwrap().success());
        assert_eq!(killer.look(stop_trees(vec![pid])), Look::Nothing);
    }

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("a) R 1 (b");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program).arg("100").spawn().unwrap();
        assert_eq!(Stat::read(Pid::from_child(&child)).unwrap().parent, Some(getpid()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
