//! A 200 to a submission says that the disk has it. A killed process cannot show that, because the
//! system keeps what was written; so this looks at the order of the system calls.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{Server, endless};
use tempfile::TempDir;

/// What the disk and the client see of the server, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Submission,
    /// The write-ahead log has reached the disk, all that was written before.
    Synced,
    Answer,
}

/// An strace that is attached to a server.
struct Trace {
    strace: Child,
    folder: TempDir,
}

impl Trace {
    /// `None` where there is no strace, or where it may not look.
    fn of(server: &Server) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mut strace = Command::new("strace")
            .args(["-f", "-y", "-s", "40", "-e"])
            .arg("trace=read,recvfrom,write,writev,sendto,sendmsg,fsync,fdatasync")
            .args(["-p", &server.process_id().to_string(), "-o"])
            .arg(log(&folder))
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let said = BufReader::new(strace.stderr.take().unwrap()).lines().next()?.unwrap();
        if !said.contains("attached") {
            strace.wait().unwrap();
            return None;
        }
        Some(Self { strace, folder })
    }

    fn finish(mut self) -> Vec<Event> {
        let stop = format!("kill -INT {}", self.strace.id());
        assert!(Command::new("sh").args(["-c", &stop]).status().unwrap().success());
        self.strace.wait().unwrap();
        events(&std::fs::read_to_string(log(&self.folder)).unwrap())
    }
}

fn log(folder: &TempDir) -> PathBuf {
    folder.path().join("strace.log")
}

/// Reads lines such as `12 fdatasync(9</tmp/tasks.db-wal>) = 0`, of which another thread's line may
/// make two: `12 fdatasync(9</tmp/tasks.db-wal> <unfinished ...>`, `12 <... fdatasync resumed>) = 0`.
fn events(log: &str) -> Vec<Event> {
    let mut events = Vec::new();
    // The threads whose sync began after the last submission had come.
    let mut syncing = Vec::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let begins = call.contains("sync(") && call.contains("-wal>");
        if begins {
            syncing.push(thread);
        }
        if call.contains("\"POST /tasks ") {
            syncing.clear();
            events.push(Event::Submission);
        } else if call.contains("\"HTTP/1.1 200 ") {
            events.push(Event::Answer);
        } else if (begins || call.contains("sync resumed>")) && call.ends_with("= 0") {
            let before = syncing.len();
            syncing.retain(|it| *it != thread);
            events.extend((syncing.len() < before).then_some(Event::Synced));
        }
    }
    events
}

#[tokio::test]
async fn the_disk_has_a_task_before_its_client_is_answered() {
    let server = Server::start(&[]);
    let Some(trace) = Trace::of(&server) else {
        eprintln!("SKIPPED: there is no strace here, or it may not look at other processes");
        return;
    };
    const SUBMISSIONS: usize = 5;
    for _ in 0..SUBMISSIONS {
        // They go on for ever, so that no end of one is stored in between.
        server.submit(endless()).await;
    }
    let events = trace.finish();
    let expected = [Event::Submission, Event::Synced, Event::Answer].repeat(SUBMISSIONS);
    assert_eq!(events, expected);
}

#[test]
fn a_sync_that_began_before_the_submission_does_not_count() {
    let log = "1 fdatasync(9</tmp/tasks.db-wal> <unfinished ...>\n\
               2 recvfrom(5<socket:[7]>, \"POST /tasks HTTP/1.1\\r\\n\", 99) = 99\n\
               1 <... fdatasync resumed>)          = 0\n\
               2 sendto(5<socket:[7]>, \"HTTP/1.1 200 OK\\r\\n\", 99) = 99\n\
               1 fdatasync(9</tmp/tasks.db-wal>)   = 0";
    assert_eq!(events(log), [Event::Submission, Event::Answer, Event::Synced]);
}
