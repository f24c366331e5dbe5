//! Misbehaving tasks: each may harm only itself. They run in a server inside this process, on a
//! real socket and a real database, because no shipped task behaves like that.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use task_server::app::App;
use task_server::config::{Config, Settings};
use task_server::task::{
    InvalidParameters, PathUse, Paths, Task, TaskContext, TaskError, TaskResult, TaskType,
    async_trait,
};
use task_server::tasks::TaskRegistry;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Named gates where tasks and tests wait for each other. Both sides open gates; `changed` wakes
/// all waiters, which check for their own gate under the lock.
struct Gates {
    open: Mutex<HashSet<String>>,
    changed: Condvar,
}

static GATES: std::sync::LazyLock<Gates> =
    std::sync::LazyLock::new(|| Gates { open: Mutex::default(), changed: Condvar::new() });

impl Gates {
    /// Opens a gate; returns true if it was closed.
    fn open(&self, name: &str) -> bool {
        let was_closed = self.open.lock().unwrap().insert(name.to_owned());
        self.changed.notify_all();
        was_closed
    }

    fn wait(&self, name: &str) {
        let open = self.open.lock().unwrap();
        drop(self.changed.wait_while(open, |open| !open.contains(name)).unwrap());
    }

    async fn wait_async(&'static self, name: String) {
        tokio::task::spawn_blocking(move || self.wait(&name)).await.unwrap();
    }
}

/// A task that follows a script.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Scripted {
    /// What to do.
    act: String,
    /// Gate to wait at.
    gate: String,
}

static FAILURES: AtomicU32 = AtomicU32::new(0);

#[async_trait]
impl Task for Scripted {
    fn paths() -> Paths {
        Paths { input: PathUse::Optional, output: PathUse::Optional, ..Paths::NONE }
    }

    fn validate(&self) -> Result<(), InvalidParameters> {
        let is_first = || GATES.open(&format!("{} submitted", self.gate));
        match self.act.as_str() {
            "fail, then check slowly" if !is_first() => {
                GATES.open(&format!("{} reached", self.gate));
                GATES.wait(&self.gate);
            }
            "fail, then panic in the check" if !is_first() => panic!("no check"),
            _ => {}
        }
        Ok(())
    }

    async fn execute(self: Box<Self>, ctx: TaskContext) -> TaskResult {
        let gate = self.gate.clone();
        match self.act.as_str() {
            "fail, then check slowly" | "fail, then panic in the check"
                if ctx.task_info().attempt == 1 =>
            {
                return Err(TaskError::failed("not yet"));
            }
            "fail, then check slowly" => {}
            "panic" => panic!("the {} went missing", "floor"),
            "panic in a thread" => {
                ctx.run_blocking(|_| -> Result<(), TaskError> { panic!("no thread") }).await?;
            }
            "huge result" => return Ok(json!({ "text": "x".repeat(2 * 1024 * 1024) })),
            "nested error" => {
                let error = std::fs::read("/nonexistent").unwrap_err();
                return Err(std::io::Error::new(error.kind(), Outer(error)).into());
            }
            "claim to be cancelled" => return Err(TaskError::Cancelled),
            "return early" => {
                ctx.cancelled().await;
                return Ok(json!({ "cancelled": true }));
            }
            "write and return early" => {
                let done = ctx.clone();
                ctx.create_output()?.write_all(b"half of it")?;
                return ctx
                    .run_blocking(move |ctx| {
                        GATES.open(&format!("{gate} reached"));
                        while !ctx.is_cancelled() {
                            std::thread::yield_now();
                        }
                        done.update_progress(50.0, "leaving early");
                        Ok(json!({ "cancelled": true }))
                    })
                    .await;
            }
            "ignore everything" => {
                let waiting = gate.clone();
                ctx.run_blocking(move |_| {
                    GATES.open(&format!("{waiting} reached"));
                    GATES.wait(&waiting);
                    Ok(())
                })
                .await?;
            }
            // Computes between awaits, which async code must not do.
            "spin" => {
                GATES.open(&format!("{gate} reached"));
                while !ctx.is_cancelled() {
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_millis(200) {
                        std::hint::spin_loop();
                    }
                    tokio::task::yield_now().await;
                }
            }
            // Blocks its thread, which async code must not do.
            "hold the thread" => {
                GATES.open(&format!("{gate} reached"));
                GATES.wait(&gate);
            }
            "write and fail" => {
                ctx.create_output()?.write_all(b"half of it")?;
                return Err(TaskError::permanent("the rest is missing"));
            }
            "write and wait" => {
                ctx.create_output()?.write_all(b"all of it")?;
                GATES.open(&format!("{gate} reached"));
                GATES.wait_async(gate).await;
            }
            "write and return at last" => {
                ctx.create_output()?.write_all(b"all of it")?;
                GATES.open(&format!("{gate} reached"));
                ctx.cancelled().await;
            }
            "create twice" => {
                let _first = ctx.create_output()?;
                ctx.create_output()?;
            }
            "fail twice" => {
                if FAILURES.fetch_add(1, Ordering::SeqCst) < 2 {
                    return Err(TaskError::failed("not yet"));
                }
            }
            "fail" => return Err(TaskError::failed("not this time")),
            "fail for good" => return Err(TaskError::permanent("never")),
            "many updates" => {
                for step in 0..100_000 {
                    ctx.update_progress(f64::from(step) / 1000.0, format!("step {step}"));
                }
                GATES.open(&format!("{gate} reached"));
                GATES.wait_async(gate).await;
            }
            other => return Err(TaskError::permanent(format!("unknown act: {other}"))),
        }
        Ok(json!({ "done": true }))
    }
}

/// An error with a cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot load the model")]
struct Outer(#[source] std::io::Error);

/// A server in this process whose `dummy_short` is [`Scripted`].
struct Server {
    folder: TempDir,
    address: String,
    client: reqwest::Client,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(TempDir::new().unwrap(), adjust).await
    }

    async fn start_in(folder: TempDir, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::load(Settings::default(), None).unwrap();
        config.listen = "127.0.0.1:0".to_owned();
        config.database = folder.path().join("tasks.db");
        config.roots = vec![folder.path().to_owned()];
        config.shutdown_grace = Duration::ZERO;
        adjust(&mut config);
        let mut registry = TaskRegistry::builtin();
        registry.replace::<Scripted>(TaskType::DummyShort, json!({ "gate": "" }));
        let app = App::build(config, registry).await.unwrap();
        let address = app.address().to_string();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(app.serve(shutdown.clone()));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { folder, address, client, shutdown, served }
    }

    /// Stops the server and starts another one on the same files.
    async fn restart(self) -> Self {
        self.shutdown.cancel();
        self.served.await.unwrap();
        Self::start_in(self.folder, |_| {}).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn submit(&self, act: &str, gate: &str, more: Value) -> String {
        let mut body =
            json!({ "task_type": "dummy_short", "parameters": { "act": act, "gate": gate } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.client.post(self.url("/tasks")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.unwrap();
        answer["task_id"].as_str().unwrap().to_owned()
    }

    async fn get(&self, path: &str) -> Value {
        self.client.get(self.url(path)).send().await.unwrap().json().await.unwrap()
    }

    async fn delete(&self, id: &str) -> (u16, Value) {
        let url = self.url(&format!("/tasks/{id}"));
        let answer = self.client.delete(url).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Waits until the task has ended; returns its record.
    async fn ended(&self, id: &str) -> Value {
        loop {
            let task = self.get(&format!("/tasks/{id}?wait=60")).await;
            if task["completed_at"].is_string() {
                return task;
            }
        }
    }

    /// Asserts that the server still runs tasks.
    async fn works(&self) {
        let id = self.submit("fail for good", "", json!({})).await;
        assert_eq!(self.ended(&id).await["error"], "never");
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with("tasks.db")).collect();
        names.sort();
        names
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

async fn reached(gate: &str) {
    GATES.wait_async(format!("{gate} reached")).await;
}

#[tokio::test]
async fn a_panic_fails_its_task_with_its_message() {
    let server = Server::start().await;
    for (act, message) in [("panic", "the floor went missing"), ("panic in a thread", "no thread")]
    {
        let id = server.submit(act, "", json!({})).await;
        let task = server.ended(&id).await;
        assert_eq!(task["status"], "failed");
        assert_eq!(task["error"], format!("the task panicked: {message}"));
        assert_eq!(task["message"], format!("Task failed: the task panicked: {message}"));
    }
    server.works().await;
}

/// The second attempt starts from the row, so its parameters are checked again.
#[tokio::test]
async fn a_slow_check_of_stored_parameters_holds_up_nobody_else() {
    let server = Server::start().await;
    let two = json!({ "max_attempts": 2 });
    let id = server.submit("fail, then check slowly", "slow check", two).await;
    reached("slow check").await;
    let others = tokio::time::timeout(Duration::from_secs(30), server.works()).await;
    GATES.open("slow check");
    assert!(others.is_ok(), "the check blocked other tasks");
    assert_eq!(server.ended(&id).await["status"], "completed");
}

#[tokio::test]
async fn a_panic_in_a_check_of_stored_parameters_sets_the_task_aside() {
    let server = Server::start().await;
    let two = json!({ "max_attempts": 2 });
    let id = server.submit("fail, then panic in the check", "panicking check", two).await;
    let reason = "the check of its parameters panicked";
    let task = loop {
        let task = server.get(&format!("/tasks/{id}")).await;
        if task["message"] == reason {
            break task;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&task["status"], &task["attempt"]), (&json!("pending"), &json!(1)));
    assert_eq!(task["waiting_because"], reason);
    server.works().await;
    assert_eq!(server.delete(&id).await.0, 200);
}

#[tokio::test]
async fn a_huge_result_fails_its_task_with_advice() {
    let server = Server::start().await;
    let id = server.submit("huge result", "", json!({ "max_attempts": 5 })).await;
    let task = server.ended(&id).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("failed"), &json!(1)));
    let error = task["error"].as_str().unwrap();
    assert!(error.contains("1048576") && error.contains("output file"), "{error}");
}

#[tokio::test]
async fn an_error_is_told_with_its_causes() {
    let server = Server::start().await;
    let id = server.submit("nested error", "", json!({})).await;
    let error = server.ended(&id).await["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("cannot load the model: No such file"), "{error}");
}

#[tokio::test]
async fn a_task_cannot_cancel_itself() {
    let server = Server::start().await;
    let id = server.submit("claim to be cancelled", "", json!({})).await;
    let task = server.ended(&id).await;
    assert_eq!(task["status"], "failed");
    assert!(task["error"].as_str().unwrap().contains("nobody asked"), "{task}");
}

#[tokio::test]
async fn an_early_return_after_a_cancellation_is_a_cancellation() {
    let server = Server::start().await;
    let id = server.submit("return early", "", json!({})).await;
    let (status, body) = server.delete(&id).await;
    assert_eq!((status, &body["status"]), (200, &json!("cancelled")));
    let task = server.ended(&id).await;
    assert_eq!((&task["status"], &task["result"]), (&json!("cancelled"), &Value::Null));
}

#[tokio::test]
async fn a_task_that_ignores_its_cancellation_is_said_to_run_still() {
    let server = Server::start().await;
    let id = server.submit("ignore everything", "stubborn", json!({})).await;
    reached("stubborn").await;
    let (status, body) = server.delete(&id).await;
    assert_eq!((status, &body["status"]), (202, &json!("running")));
    assert_eq!(body["message"], "Cancellation requested");
    let task = server.get(&format!("/tasks/{id}")).await;
    assert_eq!(task["status"], "running");
    assert!(task["cancel_requested_at"].is_string(), "{task}");
    GATES.open("stubborn");
    assert_eq!(server.ended(&id).await["status"], "cancelled");
}

#[tokio::test]
async fn a_timeout_ends_a_task_that_ignores_it_and_frees_its_slots() {
    let one = |config: &mut Config| (config.max_running, config.cpu_slots) = (1, 1);
    let server = Server::start_with(one).await;
    let limits = json!({ "timeout_seconds": 0.05 });
    let id = server.submit("ignore everything", "abandoned", limits).await;
    reached("abandoned").await;
    let task = server.ended(&id).await;
    assert_eq!(task["status"], "failed");
    assert_eq!(task["error"], "the task did not end within its timeout of 0.05 s");
    let ready = server.get("/health/ready").await;
    assert_eq!(ready["abandoned_threads"], 1, "{ready}");
    // The only run slot and the only CPU slot are free again.
    let id = server.submit("panic in a thread", "", json!({})).await;
    server.ended(&id).await;
    GATES.open("abandoned");
}

#[tokio::test]
async fn abandoned_threads_hold_their_slots_and_as_many_more_are_lent_once() {
    const SLOTS: usize = 2;
    let server = Server::start_with(|config| config.cpu_slots = SLOTS).await;
    let limits = json!({ "timeout_seconds": 0.05 });
    for abandoned in 1..=2 * SLOTS {
        assert_eq!(server.get("/health/ready").await["status"], "ok");
        let id = server.submit("ignore everything", "lent", limits.clone()).await;
        assert_eq!(server.ended(&id).await["status"], "failed");
        let ready = server.get("/health/ready").await;
        assert_eq!(ready["abandoned_threads"], abandoned, "{ready}");
    }
    let answer = server.client.get(server.url("/health/ready")).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let ready: Value = answer.json().await.unwrap();
    assert_eq!(ready["status"], "blocked", "{ready}");
    let reason = ready["reason"].as_str().unwrap();
    assert!(reason.starts_with("4 abandoned threads hold all CPU slots"), "{reason}");
    // Blocking work has no CPU slot left; all other tasks continue.
    let waiting = server.submit("panic in a thread", "", limits).await;
    while server.get(&format!("/tasks/{waiting}")).await["message"]
        != "Waiting for one of 2 CPU slots"
    {}
    server.works().await;
    assert_eq!(server.get(&format!("/tasks/{waiting}")).await["status"], "running");
    GATES.open("lent");
    assert_eq!(server.ended(&waiting).await["error"], "the task panicked: no thread");
    while server.get("/health/ready").await["abandoned_threads"] != 0 {}
    assert_eq!(server.get("/health/ready").await["status"], "ok");
    // No extra CPU slot is lent any more.
    let first = server.submit("ignore everything", "again", json!({})).await;
    let second = server.submit("ignore everything", "again", json!({})).await;
    let third = server.submit("ignore everything", "again", json!({})).await;
    while server.get(&format!("/tasks/{third}")).await["message"]
        != "Waiting for one of 2 CPU slots"
    {}
    GATES.open("again");
    for id in [first, second, third] {
        assert_eq!(server.ended(&id).await["status"], "completed");
    }
}

#[tokio::test]
async fn the_wait_for_a_cpu_slot_is_told_and_not_counted_as_time() {
    let server = Server::start_with(|config| config.cpu_slots = 1).await;
    let first = server.submit("ignore everything", "slot", json!({})).await;
    reached("slot").await;
    let limits = json!({ "timeout_seconds": 0.05 });
    let second = server.submit("ignore everything", "slot two", limits).await;
    loop {
        let task = server.get(&format!("/tasks/{second}")).await;
        if task["message"] == "Waiting for one of 1 CPU slots" {
            break;
        }
        assert!(!task["completed_at"].is_string(), "{task}");
    }
    // Longer than its timeout.
    let third = json!({ "timeout_seconds": 0.2 });
    let third = server.submit("return early", "", third).await;
    assert_eq!(server.ended(&third).await["status"], "failed");
    assert_eq!(server.get(&format!("/tasks/{second}")).await["status"], "running");
    GATES.open("slot two");
    GATES.open("slot");
    assert_eq!(server.ended(&first).await["status"], "completed");
    assert_eq!(server.ended(&second).await["status"], "completed");
}

#[tokio::test]
async fn code_that_holds_its_threads_does_not_hold_up_the_server() {
    let server = Server::start().await;
    // More than there are threads for tasks.
    let holders = std::thread::available_parallelism().unwrap().get() + 2;
    let limits = json!({ "timeout_seconds": 0.1 });
    let mut ids = Vec::new();
    for _ in 0..holders {
        ids.push(server.submit("hold the thread", "held", limits.clone()).await);
    }
    reached("held").await;
    for id in &ids {
        assert_eq!(server.ended(id).await["status"], "failed");
    }
    GATES.open("held");
    server.works().await;
}

#[tokio::test]
async fn tasks_that_compute_between_awaits_do_not_starve_the_others() {
    let server = Server::start().await;
    let spinners = 2 * std::thread::available_parallelism().unwrap().get();
    let mut ids = Vec::new();
    for spinner in 0..spinners {
        let gate = format!("spinner {spinner}");
        ids.push(server.submit("spin", &gate, json!({})).await);
    }
    for spinner in 0..spinners {
        reached(&format!("spinner {spinner}")).await;
    }
    // If each step waited for the polls of two spinners, the victims would take more than two
    // minutes.
    let body = json!({
        "task_type": "dummy_long",
        "parameters": { "duration": 1.0, "steps": 400 },
        "timeout_seconds": 60,
    });
    let mut victims = Vec::new();
    for _ in 0..4 {
        let answer = server.client.post(server.url("/tasks")).json(&body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        victims.push(answer["task_id"].as_str().unwrap().to_owned());
    }
    for id in &victims {
        let victim = server.ended(id).await;
        assert_eq!(victim["status"], "completed", "{victim:#}");
    }
    for id in &ids {
        assert_eq!(server.get(&format!("/tasks/{id}")).await["status"], "running");
        server.delete(id).await;
    }
    for id in &ids {
        assert_eq!(server.ended(id).await["status"], "cancelled");
    }
}

#[tokio::test]
async fn nothing_is_left_of_the_output_of_a_failed_task() {
    let server = Server::start().await;
    for act in ["write and fail", "create twice"] {
        let output = json!({ "output_file_path": "new/out.txt" });
        let id = server.submit(act, "", output).await;
        assert_eq!(server.ended(&id).await["status"], "failed");
        assert_eq!(std::fs::read_dir(server.path().join("new")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn an_output_appears_when_the_task_has_returned() {
    let server = Server::start().await;
    let output = json!({ "output_file_path": "out.txt" });
    let id = server.submit("write and wait", "publish", output).await;
    reached("publish").await;
    assert!(!server.path().join("out.txt").exists());
    GATES.open("publish");
    assert_eq!(server.ended(&id).await["status"], "completed");
    assert_eq!(std::fs::read(server.path().join("out.txt")).unwrap(), b"all of it");
    assert_eq!(server.files(), ["out.txt"]);
}

#[tokio::test]
async fn a_cancelled_task_publishes_nothing_and_keeps_what_was_there() {
    let server = Server::start().await;
    std::fs::write(server.path().join("out.txt"), "before").unwrap();
    // The second act returns success after its cancellation, which does not count.
    for act in ["write and wait", "write and return at last"] {
        let output = json!({ "output_file_path": "out.txt" });
        let id = server.submit(act, act, output).await;
        reached(act).await;
        let (status, _) = server.delete(&id).await;
        assert_eq!(status, 200);
        assert_eq!(server.ended(&id).await["status"], "cancelled");
        assert_eq!(std::fs::read(server.path().join("out.txt")).unwrap(), b"before");
        assert_eq!(server.files(), ["out.txt"]);
        GATES.open(act);
    }
}

#[tokio::test]
async fn a_task_is_tried_again_as_often_as_it_was_allowed() {
    let server = Server::start().await;
    let id = server.submit("fail twice", "", json!({ "max_attempts": 3 })).await;
    let task = server.ended(&id).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("completed"), &json!(3)));
    assert_eq!(task["error"], Value::Null);
    let id = server.submit("fail for good", "", json!({ "max_attempts": 3 })).await;
    let task = server.ended(&id).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("failed"), &json!(1)));
}

#[tokio::test]
async fn between_attempts_a_task_tells_when_it_is_tried_again() {
    let server = Server::start().await;
    let id = server.submit("fail", "", json!({ "max_attempts": 1000 })).await;
    let task = loop {
        let task = server.get(&format!("/tasks/{id}")).await;
        if task["error"].is_string() && task["status"] == "pending" {
            break task;
        }
    };
    assert_eq!(task["error"], "not this time");
    assert!(task["waiting_because"].as_str().unwrap().starts_with("retry at 2"), "{task}");
    assert_eq!(task.get("queue_position"), None);
    assert_eq!(server.delete(&id).await.0, 200);
}

#[tokio::test]
async fn a_stop_sends_running_tasks_back_without_using_up_an_attempt() {
    let server = Server::start().await;
    let output = json!({ "output_file_path": "out.txt" });
    let id = server.submit("write and wait", "interrupted", output).await;
    let stubborn = server.submit("ignore everything", "interrupted too", json!({})).await;
    reached("interrupted").await;
    reached("interrupted too").await;
    let server = server.restart().await;
    GATES.open("interrupted");
    GATES.open("interrupted too");
    for id in [id, stubborn] {
        let task = server.ended(&id).await;
        assert_eq!((&task["status"], &task["attempt"]), (&json!("completed"), &json!(1)));
    }
    assert_eq!(server.files(), ["out.txt"]);
}

#[tokio::test]
async fn what_a_task_returns_because_the_server_stops_counts_for_nothing() {
    let server = Server::start().await;
    let output = json!({ "output_file_path": "out.txt" });
    let id = server.submit("write and return early", "half done", output).await;
    reached("half done").await;
    let server = server.restart().await;
    assert_eq!(server.get(&format!("/tasks/{id}")).await["completed_at"], Value::Null);
    assert!(!server.path().join("out.txt").exists());
    server.delete(&id).await;
    assert_eq!(server.ended(&id).await["status"], "cancelled");
}

#[tokio::test]
async fn a_flood_of_updates_is_seen_at_its_latest() {
    let server = Server::start().await;
    let id = server.submit("many updates", "flood", json!({})).await;
    reached("flood").await;
    let task = server.get(&format!("/tasks/{id}")).await;
    assert_eq!(task["message"], "step 99999");
    assert_eq!(task["progress"], 99.999);
    let list = server.get("/tasks?status=running").await;
    assert_eq!(list[0]["message"], "step 99999");
    GATES.open("flood");
    assert_eq!(server.ended(&id).await["progress"], 100.0);
}
