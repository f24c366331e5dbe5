//! A disk that fails where SQLite does not expect it to be full. `strace` injects the errors of
//! disks, quotas and network file systems into the real server.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::common::{PATIENCE, Server, dummy};

/// Failing system calls in a running server, until dropped.
struct Fault(Child);

impl Fault {
    /// `fault` is `error=` and the name of an error, or `delay_enter=` and microseconds. Skips the
    /// test and returns `None` where injection is not possible.
    fn inject(server: &Server, calls: &str, fault: &str) -> Option<Self> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:{fault}")]);
        strace.args(["-p", &server.process_id().to_string()]).stderr(Stdio::piped());
        let Ok(mut child) = strace.spawn() else {
            crate::common::skips::skip("strace is not installed");
            return None;
        };
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        if !line.contains("attached") {
            crate::common::skips::skip(&format!("strace cannot attach: {line}"));
            return None;
        }
        // Drains its messages about new threads.
        std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
        Some(Self(child))
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let interrupt = format!("kill -INT {}", self.0.id());
        let _ = Command::new("sh").args(["-c", &interrupt]).status();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_disk_without_room_is_507_wherever_it_says_so_and_a_broken_one_is_500() {
    let server = Server::start(&[]);
    for (calls, error, status) in [
        ("fsync,fdatasync", "ENOSPC", 507),
        ("fsync,fdatasync", "EDQUOT", 507),
        ("pwrite64", "EDQUOT", 507),
        ("pwrite64", "ENOSPC", 507),
        ("fsync,fdatasync", "EIO", 500),
        ("pwrite64", "EIO", 500),
    ] {
        let Some(fault) = Fault::inject(&server, calls, &format!("error={error}")) else { return };
        let refused = server.post("/tasks", &dummy(0.0)).await;
        assert_eq!(refused.status, status, "{error} from {calls}: {refused}");
        drop(fault);
        let id = server.submit(dummy(0.0)).await;
        server.wait_for(&id, "completed").await;
    }
}

#[tokio::test]
async fn a_cancellation_does_not_wait_for_ever_for_a_slow_disk() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(1.0)).await;
    server.until_running(&id).await;
    // Longer than any client would wait.
    let Some(fault) = Fault::inject(&server, "fsync,fdatasync", "delay_enter=600000000") else {
        return;
    };
    let begin = Instant::now();
    // A cancellation would be accepted until the task has ended.
    while server.task(&id).await["progress"] != 100.0 {
        assert!(begin.elapsed() < PATIENCE, "the task does not end");
    }
    let answer = server.delete(&format!("/tasks/{id}")).await;
    assert!(answer.error(503).contains("try again"), "{answer}");
    assert_eq!(answer.header("retry-after"), "1");
    drop(fault);
    server.wait_for(&id, "completed").await;
}
