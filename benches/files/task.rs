//! A server for tasks on files, run one after the other.

use std::path::Path;
use std::time::Instant;

use reqwest::Client;
use serde_json::{Value, json};

use crate::common::server::Server;

/// A fresh server, so that its peak memory is due to its tasks.
pub(crate) struct TaskServer {
    server: Server,
    client: Client,
}

impl TaskServer {
    pub(crate) fn start(root: &Path) -> Self {
        let server = Server::start(&["--root", root.to_str().unwrap()]);
        // The server closes idle connections during the reference's turn.
        let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        Self { server, client }
    }

    /// Submits a task and waits for its end; returns the seconds between.
    pub(crate) async fn run(
        &self,
        task_type: &str,
        parameters: &Value,
        (input, output): (&Path, &Path),
    ) -> f64 {
        let body = json!({
            "task_type": task_type,
            "parameters": parameters,
            "input_file_path": input,
            "output_file_path": output,
        });
        let tasks = format!("http://{}/tasks", self.server.address());
        let begin = Instant::now();
        let submitted: Value =
            self.client.post(&tasks).json(&body).send().await.unwrap().json().await.unwrap();
        let id = submitted["task_id"].as_str().unwrap_or_else(|| panic!("refused: {submitted}"));
        loop {
            let answer = self.client.get(format!("{tasks}/{id}?wait=30")).send().await.unwrap();
            let task: Value = answer.json().await.unwrap();
            if task["completed_at"].is_string() {
                assert_eq!(task["status"], "completed", "{task:#}");
                return begin.elapsed().as_secs_f64();
            }
        }
    }

    /// CPU time so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.server.cpu_seconds()
    }

    /// Peak memory in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.server.peak_memory()
    }
}
