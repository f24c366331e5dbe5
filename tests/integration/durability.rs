//! A 200 to a submission means that the task is on disk. Killing the process cannot show that,
//! because the system keeps written data; so this checks the order of system calls.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::common::{Server, endless, tokenize};
use tempfile::TempDir;

/// Events at the disk and the client, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Submission,
    /// All data written to the write-ahead log so far is on disk.
    Synced,
    Answer,
}

/// A running strace of a server.
struct Trace {
    strace: Child,
    /// Receives a line for each new thread. Kept open, because strace would exit on a closed pipe.
    _said: BufReader<ChildStderr>,
    folder: TempDir,
}

impl Trace {
    /// `None` where strace is not installed or not permitted.
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
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        if !line.contains("attached") {
            strace.wait().unwrap();
            return None;
        }
        Some(Self { strace, _said: said, folder })
    }

    /// Stops the trace; returns its output.
    fn finish(mut self) -> String {
        let stop = format!("kill -INT {}", self.strace.id());
        assert!(Command::new("sh").args(["-c", &stop]).status().unwrap().success());
        self.strace.wait().unwrap();
        std::fs::read_to_string(log(&self.folder)).unwrap()
    }
}

fn log(folder: &TempDir) -> PathBuf {
    folder.path().join("strace.log")
}

/// Parses lines such as `12 fdatasync(9</tmp/tasks.db-wal>) = 0`. A line of another thread may
/// split them in two: `12 fdatasync(9</tmp/tasks.db-wal> <unfinished ...>`, `12 <... fdatasync
/// resumed>) = 0`.
fn events(log: &str) -> Vec<Event> {
    let mut events = Vec::new();
    // Threads whose sync began after the last submission had arrived.
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
        crate::common::skips::skip("strace is not installed or not permitted");
        return;
    };
    const SUBMISSIONS: usize = 5;
    for _ in 0..SUBMISSIONS {
        // Endless tasks, so that no end of a task is stored in between.
        server.submit(endless()).await;
    }
    let events = events(&trace.finish());
    let expected = [Event::Submission, Event::Synced, Event::Answer].repeat(SUBMISSIONS);
    assert_eq!(events, expected);
}

#[tokio::test]
async fn the_disk_has_the_folders_of_an_output_before_its_task_is_completed() {
    let server = Server::start(&[]);
    let Some(trace) = Trace::of(&server) else {
        crate::common::skips::skip("strace is not installed or not permitted");
        return;
    };
    server.write("in.txt", "some text");
    let id = server.submit(tokenize("in.txt", "new/folders/out.json")).await;
    server.wait_for(&id, "completed").await;
    let log = trace.finish();
    let root = server.folder().canonicalize().unwrap();
    for folder in ["", "/new", "/new/folders"] {
        let synced = format!("<{}{folder}>", root.display());
        let synced = |line: &&str| line.contains("fsync(") && line.contains(&synced);
        assert!(log.lines().any(|line| synced(&line)), "{folder} was not synced:\n{log}");
    }
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
