//! A task that kills the server in each attempt, and tasks that run beside it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use task_server::task::{Task, TaskContext, TaskResult, async_trait};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use crate::common::Server;
use crate::faults::server::{ASK, SERVER};

const NEIGHBOURS: u32 = 60;
const SIGABRT: i32 = 6;

/// One permit per running neighbour.
static RUNNING: Semaphore = Semaphore::const_new(0);

/// Number of server deaths so far.
fn deaths() -> usize {
    fs::read_to_string("deaths").unwrap_or_default().len()
}

/// Kills the server. The first two times it waits until all neighbours run.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Poison {}

#[async_trait]
impl Task for Poison {
    async fn execute(self: Box<Self>, _: TaskContext) -> TaskResult {
        if deaths() < 2 {
            RUNNING.acquire_many(NEIGHBOURS).await?.forget();
        }
        File::options().append(true).create(true).open("deaths")?.write_all(b"x")?;
        std::process::abort()
    }
}

/// Harmless task that ends only after the server has died twice.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Neighbour {}

#[async_trait]
impl Task for Neighbour {
    async fn execute(self: Box<Self>, _: TaskContext) -> TaskResult {
        RUNNING.add_permits(1);
        if deaths() < 2 {
            std::future::pending().await
        }
        Ok(json!({}))
    }
}

#[tokio::test]
async fn a_poison_task_is_failed_and_its_sixty_neighbours_finish() {
    let mut server = Server::start_self(TempDir::new().unwrap(), SERVER, &[ASK]);
    let poison = server.submit(json!({ "task_type": "dummy_short" })).await;
    let mut neighbours = Vec::new();
    for _ in 1..NEIGHBOURS {
        neighbours.push(server.submit(json!({ "task_type": "dummy_long" })).await);
    }
    // The server may die before this response.
    let last = server.request(reqwest::Method::POST, "/tasks");
    let _ = last.json(&json!({ "task_type": "dummy_long" })).send().await;
    assert_eq!(server.wait_exit().signal(), Some(SIGABRT));
    for _ in 0..2 {
        let status = server.run_self_to_its_end(SERVER, &[ASK]);
        assert_eq!(status.signal(), Some(SIGABRT));
    }

    server.restart_self(SERVER, &[ASK]);
    let task = server.wait_for(&poison, "failed").await;
    assert!(task["error"].as_str().unwrap().contains("stopped 3 times"), "{task:#}");
    for id in &neighbours {
        let task = server.wait_for(id, "completed").await;
        assert_eq!(task["attempt"], 1, "a crash uses up no attempt: {task:#}");
    }
    let all = |tasks: &Value| tasks.as_array().unwrap().len() == NEIGHBOURS as usize;
    server.until("/tasks?status=completed", all).await;
    assert_eq!(fs::read_to_string(server.folder().join("deaths")).unwrap().len(), 3);
}
