//! A server under test in its own folder, and common client operations.

mod answer;
pub(crate) mod blocks;
mod log;
mod process;
pub(crate) mod skips;

use std::path::Path;
use std::process::{Child, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, Request, RequestBuilder};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) use answer::Answer;
use log::Logged;
pub(crate) use process::PATIENCE;
use process::command;

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_task-server");

/// A running server. Dropping it kills the process and removes the folder.
pub(crate) struct Server {
    run: Logged,
    address: String,
    client: Client,
    folder: TempDir,
}

impl Server {
    /// Starts a server in an empty folder on a free port.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), args, &[])
    }

    /// Starts a server in `folder` with these environment variables.
    pub(crate) fn start_in(folder: TempDir, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start_with(Path::new(BINARY), folder, args, env)
    }

    /// Starts a binary other than the one under test.
    pub(crate) fn start_binary(binary: &Path, folder: TempDir, args: &[&str]) -> Self {
        Self::start_with(binary, folder, args, &[])
    }

    /// Starts this test binary as a server; `test` is the test that serves.
    pub(crate) fn start_self(folder: TempDir, test: &str, env: &[(&str, &str)]) -> Self {
        let run = spawn_self(folder.path(), test, env);
        let address = run.process.wait_for_address();
        Self::with_run(run, address, folder)
    }

    fn start_with(binary: &Path, folder: TempDir, args: &[&str], env: &[(&str, &str)]) -> Self {
        let (run, address) = listen(binary, folder.path(), args, env);
        Self::with_run(run, address, folder)
    }

    fn with_run(run: Logged, address: String, folder: TempDir) -> Self {
        let client = Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { run, address, client, folder }
    }

    /// Kills the server and starts another one in the same folder.
    pub(crate) fn restart(&mut self, args: &[&str]) {
        self.kill();
        (self.run, self.address) = listen(Path::new(BINARY), self.folder.path(), args, &[]);
    }

    /// Starts a server after [`kill`](Self::kill), in the same folder and on the same address.
    pub(crate) fn come_back(&mut self) {
        let args = ["--listen", self.address.as_str()];
        self.run = Logged::spawn(command(Path::new(BINARY), self.folder.path(), &args, &[]));
        self.run.process.wait_for_address();
    }

    /// Like [`restart`](Self::restart), with this test binary as the server.
    pub(crate) fn restart_self(&mut self, test: &str, env: &[(&str, &str)]) {
        self.kill();
        self.run = spawn_self(self.folder.path(), test, env);
        self.address = self.run.process.wait_for_address();
    }

    /// Like [`restart_self`](Self::restart_self), for a server that may die before it listens.
    /// Waits for its exit.
    pub(crate) fn run_self_to_its_end(&mut self, test: &str, env: &[(&str, &str)]) -> ExitStatus {
        self.run = spawn_self(self.folder.path(), test, env);
        self.wait_exit()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.run.process.id()
    }

    /// Sends SIGKILL, like a crash.
    pub(crate) fn kill(&mut self) {
        self.run.process.kill();
    }

    /// Starts another server in the same folder and kills it after `after`, or as soon as it
    /// listens. Returns true if it listened.
    pub(crate) fn restart_and_kill(&mut self, args: &[&str], after: Duration) -> bool {
        self.kill();
        self.run = spawn(Path::new(BINARY), self.folder.path(), args, &[]);
        let listened = self.run.process.address_within(after).is_some();
        self.kill();
        listened
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.run.process.terminate();
    }

    /// Waits until the process exits by itself.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        self.run.process.wait_exit()
    }

    /// The log so far; all of it after the exit.
    pub(crate) fn log(&self) -> String {
        self.run.log.text()
    }

    /// Waits for a log line that contains all of `parts`; returns the first.
    pub(crate) fn until_logged(&self, parts: &[&str]) -> String {
        let begin = Instant::now();
        let wanted = |line: &&str| parts.iter().all(|&part| line.contains(part));
        loop {
            if let Some(line) = self.log().lines().find(wanted) {
                return line.to_owned();
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "the log has no line with {parts:?}: {}",
                self.log()
            );
            std::thread::yield_now();
        }
    }

    /// Peak resident memory in KiB; `None` where the system has no such figure.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        Some(self.run.process.peak_memory()? / 1024)
    }

    /// Working directory of the server: holds its database and is its only root.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the server's folder.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.folder().join(name), text).unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Request builder for [`send`](Self::send), where the short forms are not enough.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        match request.send().await {
            Ok(response) => Answer::read(response).await,
            Err(error) => panic!("no response: {error:?}"),
        }
    }

    /// Sends a prebuilt request.
    pub(crate) async fn send_built(&self, request: Request) -> Answer {
        match self.client.execute(request).await {
            Ok(response) => Answer::read(response).await,
            Err(error) => panic!("no response: {error:?}"),
        }
    }

    /// Sends raw bytes on a new connection; returns the response up to the end of its headers.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        // The server may respond and close before it has read everything.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let read = async {
            while let Ok(1..) = stream.read_buf(&mut answer).await {
                if answer.windows(4).any(|window| window == b"\r\n\r\n") {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
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

    /// Posts text with a JSON content type, valid or not.
    pub(crate) async fn post_text(&self, path: &str, body: impl Into<String>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        self.send(request.body(body.into())).await
    }

    /// Submits a task that must be accepted; returns its id.
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

    /// Waits until the task ends with this status; returns its record.
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

    /// Polls `path` without pause until its JSON is as wanted, to catch short-lived states.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let answer = self.get(path).await;
            if wanted(&answer.body) {
                return answer.body;
            }
            assert!(begin.elapsed() < PATIENCE, "still not as expected: {answer}");
        }
    }

    /// Polls until the task runs.
    pub(crate) async fn until_running(&self, id: &str) -> Value {
        let running = |task: &Value| {
            assert!(!task["completed_at"].is_string(), "ended too early: {task:#}");
            task["status"] == "running"
        };
        self.until(&format!("/tasks/{id}"), running).await
    }

    /// Polls until the task runs in a later attempt than the one in `before`.
    pub(crate) async fn until_running_again(&self, before: &Value) -> Value {
        let id = before["task_id"].as_str().unwrap();
        let again = |task: &Value| {
            task["status"] == "running" && task["started_at"] != before["started_at"]
        };
        self.until(&format!("/tasks/{id}"), again).await
    }
}

/// Runs a server that must refuse to start; returns its exit code and log.
pub(crate) fn refusal(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut run = Logged::spawn(command(Path::new(BINARY), folder, args, env));
    let code = run.process.wait_exit().code();
    (code, run.log.text())
}

/// Runs a command other than `serve` to its end.
pub(crate) fn run(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    command(Path::new(BINARY), folder, args, env).output().unwrap()
}

/// Runs the program with closed pipes as stdout and stderr; returns its exit code.
pub(crate) fn run_unheard(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut program = command(Path::new(BINARY), folder, args, env);
    program.stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap().code()
}

/// Starts the program with piped stdout and stderr.
pub(crate) fn piped(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Child {
    let mut program = command(Path::new(BINARY), folder, args, env);
    program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn listen(binary: &Path, folder: &Path, args: &[&str], env: &[(&str, &str)]) -> (Logged, String) {
    let run = spawn(binary, folder, args, env);
    let address = run.process.wait_for_address();
    (run, address)
}

fn spawn_self(folder: &Path, test: &str, env: &[(&str, &str)]) -> Logged {
    let binary = std::env::current_exe().unwrap();
    Logged::spawn(command(&binary, folder, &["--exact", test, "--nocapture"], env))
}

fn spawn(binary: &Path, folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Logged {
    let args = [&["--listen", "127.0.0.1:0"], args].concat();
    Logged::spawn(command(binary, folder, &args, env))
}

/// Submission of a dummy task that sleeps for `seconds`.
pub(crate) fn dummy(seconds: f64) -> Value {
    json!({ "task_type": "dummy_short", "parameters": { "duration": seconds, "steps": 1 } })
}

/// Submission of a task that outlives the test.
pub(crate) fn endless() -> Value {
    json!({ "task_type": "dummy_very_long", "parameters": { "duration": 1e6, "steps": 1000 } })
}

/// Submission of a tokenize task without its artificial delay.
pub(crate) fn tokenize(input: &str, output: &str) -> Value {
    json!({
        "task_type": "tokenize",
        "input_file_path": input,
        "output_file_path": output,
        "parameters": { "sleep_duration": 0 },
    })
}

/// Runs SQL in a database that no server has open.
pub(crate) async fn run_sql(path: &Path, statements: &[&str]) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    for statement in statements {
        sqlx::raw_sql(sqlx::AssertSqlSafe(*statement)).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
}

/// Restarts a server with a history of completed tasks, all tagged `plate=7`.
pub(crate) async fn give_history(server: &mut Server, tasks: u32) {
    server.kill();
    let insert = format!(
        "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT {tasks})
         INSERT INTO tasks (id, task_type, status, priority, parameters, tags, max_attempts, attempt, \
                            created_at, updated_at, completed_at)
         SELECT format('00000000-0000-7000-8000-%012x', n), 'dummy_short', 'completed', 0, '{{}}', \
                '{{\"plate\":\"7\"}}', 1, 1, n, n, n FROM number"
    );
    let tags = "INSERT OR IGNORE INTO task_tags (key, value, task_seq) SELECT 'plate', '7', seq FROM tasks";
    run_sql(&server.folder().join("tasks.db"), &[&insert, tags]).await;
    server.restart(&[]);
}
