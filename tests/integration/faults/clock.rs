//! The wall clock jumps by an hour, back and forth, while the server works. Durations keep their
//! length; times of day follow the clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use reqwest::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use task_server::task::{Task, TaskContext, TaskResult, async_trait};
use tempfile::TempDir;

use crate::common::{Server, endless};
use crate::faults::server::{ASK, SERVER};

/// Shutdown grace of the server.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// Upper limit of all waits: longer than any correct one, shorter than an hour's jump.
const FAR_TOO_LONG: Duration = Duration::from_secs(1800);
/// Time between jumps.
const BETWEEN_JUMPS: Duration = Duration::from_millis(20);

/// Blocks its thread forever and ignores its cancellation.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Stubborn {}

#[async_trait]
impl Task for Stubborn {
    async fn execute(self: Box<Self>, ctx: TaskContext) -> TaskResult {
        ctx.run_blocking(|_| {
            loop {
                thread::park();
            }
        })
        .await
    }
}

/// The library that fakes the clock of a program.
fn faketime() -> Option<PathBuf> {
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|arch| format!("/usr/lib/{arch}/faketime/libfaketimeMT.so.1").into());
    library.into_iter().find(|path: &PathBuf| path.exists())
}

/// An adjustable wall clock for a server.
struct Clock {
    library: String,
    /// File with the offset of the clock in seconds.
    offset: PathBuf,
}

impl Clock {
    fn new(folder: &Path) -> Option<Self> {
        let Some(library) = faketime() else {
            crate::common::skips::skip(
                "libfaketime is not installed (Debian: apt-get install faketime)",
            );
            return None;
        };
        let library = library.to_str().unwrap().to_owned();
        let clock = Self { library, offset: folder.join("offset") };
        clock.set(0);
        Some(clock)
    }

    fn env(&self) -> [(&str, &str); 6] {
        [
            ASK,
            ("LD_PRELOAD", &self.library),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            // Only the wall clock jumps.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]
    }

    fn set(&self, seconds: i64) {
        set(&self.offset, seconds);
    }

    /// Sets the clock forward and back until the returned value is dropped.
    fn jump_about(&self) -> Jumps {
        let (stop, stopped) = mpsc::channel();
        let offset = self.offset.clone();
        let thread = thread::spawn(move || {
            for hours in [0, 1, 0, -1].into_iter().cycle() {
                set(&offset, hours * 3600);
                if stopped.recv_timeout(BETWEEN_JUMPS) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        });
        Jumps { stop: Some(stop), thread: Some(thread) }
    }
}

/// Replaces the file atomically, so that the server never reads half a number.
fn set(offset: &Path, seconds: i64) {
    let new = offset.with_extension("new");
    fs::write(&new, format!("{seconds:+}")).unwrap();
    fs::rename(new, offset).unwrap();
}

/// A jumping clock, until dropped.
struct Jumps {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Jumps {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Asserts that the time since `began` is at least `length` and contains no jump.
#[track_caller]
fn took(began: Instant, length: Duration) {
    let took = began.elapsed();
    assert!(took >= length && took < FAR_TOO_LONG, "{took:?} instead of {length:?}");
}

fn with(mut body: Value, fields: Value) -> Value {
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn what_has_a_length_keeps_it_while_the_clock_jumps() {
    let folder = TempDir::new().unwrap();
    let Some(clock) = Clock::new(folder.path()) else { return };
    let mut server = Server::start_self(folder, SERVER, &clock.env());
    let jumps = clock.jump_about();

    // A timeout, a retry backoff, a wait, and a wait for a cancellation, all at once.
    let (seconds, began) = (Duration::from_secs, Instant::now());
    let timeout = server.submit(with(endless(), json!({ "timeout_seconds": 2 }))).await;
    let limits = json!({ "timeout_seconds": 0.05, "max_attempts": 2 });
    let retried = server.submit(with(endless(), limits)).await;
    let stubborn = server.submit(json!({ "task_type": "tokenize" })).await;
    server.until_running(&stubborn).await;
    let waited = async {
        let began = Instant::now();
        let task = server.get(&format!("/tasks/{stubborn}?wait=3")).await;
        took(began, seconds(3));
        assert_eq!(task.body["status"], "running", "{task}");
    };
    let cancelled = async {
        let began = Instant::now();
        let answer = server.delete(&format!("/tasks/{stubborn}")).await;
        took(began, seconds(1));
        assert_eq!(answer.status, 202, "{answer}");
    };
    let timed_out = async {
        server.wait_for(&timeout, "failed").await;
        took(began, seconds(2));
    };
    let tried_again = async {
        let task = server.wait_for(&retried, "failed").await;
        // Two timeouts, and three quarters of the first backoff.
        took(began, Duration::from_millis(850));
        assert_eq!(task["attempt"], 2, "{task:#}");
    };
    futures_util::join!(waited, cancelled, timed_out, tried_again);

    let goes_on = server.submit(endless()).await;
    let before = server.until_running(&goes_on).await;
    let began = Instant::now();
    server.terminate();
    assert_eq!(server.wait_exit().code(), Some(0));
    took(began, GRACE);
    server.restart_self(SERVER, &clock.env());
    let task = server.until_running_again(&before).await;
    assert_eq!(task["attempt"], 1, "{task:#}");
    server.wait_for(&stubborn, "cancelled").await;
    drop(jumps);
}

#[tokio::test]
async fn lists_are_whole_and_in_order_though_the_clock_jumped() {
    let folder = TempDir::new().unwrap();
    let Some(clock) = Clock::new(folder.path()) else { return };
    let server = Server::start_self(folder, SERVER, &clock.env());
    let mut submitted = Vec::new();
    for number in 0..60 {
        clock.set([0, 3600, -3600][number % 3]);
        let never = json!({ "output_file_path": format!("{number}") });
        submitted.push(
            server
                .submit(with(
                    json!({ "task_type": "image_process",
            "input_file_path": "absent" }),
                    never,
                ))
                .await,
        );
    }
    for id in &submitted {
        server.wait_for(id, "failed").await;
    }
    submitted.reverse();
    assert_eq!(pages(&server, "/tasks?limit=7").await, submitted);

    // A filter by time does not change that.
    let since = "/tasks?limit=7&created_after=2000-01-01T00:00:00Z";
    assert_eq!(pages(&server, since).await, submitted);
}

/// Minus sixty years: before 1970 until the year 2030.
const BEFORE_1970: i64 = -60 * 366 * 24 * 3600;

#[tokio::test]
async fn a_clock_that_falls_behind_1970_stops_no_task() {
    let folder = TempDir::new().unwrap();
    let Some(clock) = Clock::new(folder.path()) else { return };
    let server = Server::start_self(folder, SERVER, &clock.env());
    let before = server.submit(endless()).await;
    let running = server.until_running(&before).await;
    clock.set(BEFORE_1970);
    let fails = json!({ "task_type": "image_process", "input_file_path": "absent",
                         "output_file_path": "out.png" });
    let begin = Instant::now();
    // Requests may fail on a server thread that has served none before. Each try opens a new
    // connection.
    let later = loop {
        let answer = server.request(Method::POST, "/tasks").json(&fails).send().await;
        if let Ok(answer) = answer
            && answer.status() == 200
        {
            break answer.json::<Value>().await.unwrap()["task_id"].as_str().unwrap().to_owned();
        }
        assert!(begin.elapsed() < FAR_TOO_LONG);
    };
    clock.set(0);
    let task = server.wait_for(&later, "failed").await;
    assert!(task["created_at"].as_str().unwrap() < "1970", "{task:#}");
    assert_eq!(server.task(&before).await["status"], running["status"]);
    assert_eq!(pages(&server, "/tasks?created_before=1970-01-01T00:00:00Z").await, [later]);
}

/// Ids on all pages, in order.
async fn pages(server: &Server, first: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(path) = next {
        let page = server.get(&path).await;
        for task in page.body.as_array().unwrap() {
            ids.push(task["task_id"].as_str().unwrap().to_owned());
        }
        next = page.next_page().map(str::to_owned);
    }
    ids
}

#[tokio::test]
async fn a_time_to_run_at_is_one_of_the_clock() {
    let folder = TempDir::new().unwrap();
    let Some(clock) = Clock::new(folder.path()) else { return };
    let mut server = Server::start_self(folder, SERVER, &clock.env());
    let in_half_an_hour = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(30);
    let body = with(endless(), json!({ "run_at": format!("{in_half_an_hour:.6}") }));
    let id = server.submit(body.clone()).await;
    clock.set(-3600);
    server.restart_self(SERVER, &clock.env());
    assert_eq!(server.task(&id).await["status"], "pending");
    let now = server.submit(endless()).await;
    server.until_running(&now).await;
    assert_eq!(server.task(&id).await["status"], "pending", "it is due in an hour and a half");
    clock.set(3600);
    // The time has passed. The server notices within a minute, or at once at a restart.
    server.restart_self(SERVER, &clock.env());
    server.until_running(&id).await;
    let passed = server.submit(body).await;
    server.until_running(&passed).await;
}

#[tokio::test]
async fn a_server_sees_by_itself_that_the_clock_was_set_forward() {
    if std::env::var_os("CLOCK_MINUTE").is_none() {
        crate::common::skips::skip("takes a minute; CLOCK_MINUTE=1 enables it");
        return;
    }
    let folder = TempDir::new().unwrap();
    let Some(clock) = Clock::new(folder.path()) else { return };
    let server = Server::start_self(folder, SERVER, &clock.env());
    let in_half_an_hour = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(30);
    let run_at = json!({ "run_at": format!("{in_half_an_hour:.6}") });
    let id = server.submit(with(endless(), run_at)).await;
    let began = Instant::now();
    clock.set(3600);
    server.until_running(&id).await;
    took(began, Duration::ZERO);
}
