//! A real server in a folder of its own, and the few things that clients do with it.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a harness fails by panicking")]

mod answer;
mod process;

use std::path::Path;
use std::process::{ExitStatus, Output};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use answer::Answer;
use process::Process;

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_task-server");
/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(100);

/// A running server. Dropping it kills the process and removes the folder.
pub(crate) struct Server {
    process: Process,
    address: String,
    client: Client,
    folder: TempDir,
}

impl Server {
    /// Starts a server in an empty folder, on a port that the system picks.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), args, &[])
    }

    /// Starts a server in this folder, with these environment variables.
    pub(crate) fn start_in(folder: TempDir, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start_with(Path::new(BINARY), folder, args, env)
    }

    /// Starts another binary than the one under test.
    pub(crate) fn start_binary(binary: &Path, folder: TempDir, args: &[&str]) -> Self {
        Self::start_with(binary, folder, args, &[])
    }

    fn start_with(binary: &Path, folder: TempDir, args: &[&str], env: &[(&str, &str)]) -> Self {
        let (process, address) = listen(binary, folder.path(), args, env);
        let client = Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { process, address, client, folder }
    }

    /// Kills the server if it still runs and starts another one in the same folder.
    pub(crate) fn restart(&mut self, args: &[&str]) {
        self.kill();
        (self.process, self.address) = listen(Path::new(BINARY), self.folder.path(), args, &[]);
    }

    /// Starts a server again, after [`kill`](Self::kill), in the same folder and at the same address.
    pub(crate) fn come_back(&mut self) {
        let args = ["--listen", self.address.as_str()];
        self.process = Process::spawn(Path::new(BINARY), self.folder.path(), &args, &[]);
        self.process.wait_for_address();
    }

    /// The power goes out: SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// A polite stop: SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        self.process.wait_exit()
    }

    /// What it has logged so far; all of it once it has ended.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Where it runs: the place of its database, and its only root.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a file into its folder.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.folder().join(name), text).unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A request for [`send`](Self::send), for those who need more than the short forms.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        match request.send().await {
            Ok(response) => Answer::read(response).await,
            Err(error) => panic!("no answer: {error:?}"),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Posts this text as JSON, whatever it is.
    pub(crate) async fn post_text(&self, path: &str, body: impl Into<String>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        self.send(request.body(body.into())).await
    }

    /// Submits a task that is accepted; returns its id.
    pub(crate) async fn submit(&self, body: Value) -> String {
        let answer = self.post("/tasks", &body).await;
        assert_eq!(answer.status, 200, "{answer}");
        answer.body["task_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn task(&self, id: &str) -> Value {
        let answer = self.get(&format!("/tasks/{id}")).await;
        assert_eq!(answer.status, 200, "{answer}");
        answer.body
    }

    /// Holds until the task has reached this final status; returns its record.
    pub(crate) async fn wait_for(&self, id: &str, status: &str) -> Value {
        let begin = Instant::now();
        loop {
            let task = self.get(&format!("/tasks/{id}?wait=30")).await.body;
            if task["completed_at"].is_string() || begin.elapsed() > PATIENCE {
                assert_eq!(task["status"], status, "{task:#}");
                return task;
            }
        }
    }

    /// Asks again and again until the JSON at `path` is as wanted; for states that pass by.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let answer = self.get(path).await;
            if wanted(&answer.body) {
                return answer.body;
            }
            assert!(begin.elapsed() < PATIENCE, "still not as wanted: {answer}");
        }
    }

    /// Asks until the task runs.
    pub(crate) async fn until_running(&self, id: &str) -> Value {
        let running = |task: &Value| {
            assert!(!task["completed_at"].is_string(), "ended too early: {task:#}");
            task["status"] == "running"
        };
        self.until(&format!("/tasks/{id}"), running).await
    }

    /// Asks until the task runs anew: in an attempt that began after the one in `before`.
    pub(crate) async fn until_running_again(&self, before: &Value) -> Value {
        let id = before["task_id"].as_str().unwrap();
        let again = |task: &Value| {
            task["status"] == "running" && task["started_at"] != before["started_at"]
        };
        self.until(&format!("/tasks/{id}"), again).await
    }
}

/// Runs a server that is expected to refuse to start; returns its exit code and what it said.
pub(crate) fn refusal(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut process = Process::spawn(Path::new(BINARY), folder, args, env);
    let code = process.wait_exit().code();
    (code, process.log())
}

/// Runs the program to its end; for what is no server.
pub(crate) fn run(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    process::command(Path::new(BINARY), folder, args, env).output().unwrap()
}

fn listen(binary: &Path, folder: &Path, args: &[&str], env: &[(&str, &str)]) -> (Process, String) {
    let args = [&["--listen", "127.0.0.1:0"], args].concat();
    let process = Process::spawn(binary, folder, &args, env);
    let address = process.wait_for_address();
    (process, address)
}

/// A submission of one dummy task that sleeps that many seconds.
pub(crate) fn dummy(seconds: f64) -> Value {
    json!({ "task_type": "dummy_short", "parameters": { "duration": seconds, "steps": 1 } })
}

/// A submission that outlives the test.
pub(crate) fn endless() -> Value {
    json!({ "task_type": "dummy_very_long", "parameters": { "duration": 1e6, "steps": 1000 } })
}

/// A submission of a tokenize task that does not linger.
pub(crate) fn tokenize(input: &str, output: &str) -> Value {
    json!({
        "task_type": "tokenize",
        "input_file_path": input,
        "output_file_path": output,
        "parameters": { "sleep_duration": 0 },
    })
}
