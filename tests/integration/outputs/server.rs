//! The server this test binary runs when it starts itself, and its task.

use std::fs;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use task_server::app::App;
use task_server::config::{Config, Settings};
use task_server::task::{Task, TaskContext, TaskError, TaskResult, TaskType, async_trait};
use task_server::tasks::TaskRegistry;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::program;
use crate::common::Server;

const SERVER: &str = "outputs::server::serves_if_it_is_asked_to";
const ASK: (&str, &str) = ("SERVE_IN_THIS_FOLDER", "1");
/// Attempts that wait end when the server's folder has a file of this name.
pub(crate) const GO: &str = "go";

/// Stands for a program in a private folder.
#[derive(Debug, Deserialize, JsonSchema)]
struct Resumes {
    /// Fail after each checkpoint but this one.
    checkpoints: usize,
    /// Wait for [`GO`] before the end.
    wait: bool,
}

#[async_trait]
impl Task for Resumes {
    async fn execute(self: Box<Self>, ctx: TaskContext) -> TaskResult {
        let (work, state) = (ctx.work_dir()?, ctx.state_dir()?);
        let is_new = fs::read_dir(&work)?.next().is_none();
        fs::write(work.join("scratch"), "of this attempt")?;
        let checkpoint = state.join("checkpoint");
        let done = fs::read_to_string(&checkpoint).unwrap_or_default() + "x";
        fs::write(&checkpoint, &done)?;
        ctx.update_progress(50.0, work.display().to_string());
        if self.wait {
            wait_for_go(&ctx).await?;
        }
        if done.len() < self.checkpoints {
            return Err(TaskError::failed("not all is done yet"));
        }
        Ok(json!({ "work": work, "is_new": is_new, "state": state, "done": done }))
    }
}

pub(crate) async fn wait_for_go(ctx: &TaskContext) -> Result<(), TaskError> {
    while !Path::new(GO).exists() {
        ctx.sleep(Duration::from_millis(1)).await?;
    }
    Ok(())
}

pub(crate) fn resumes(checkpoints: usize, wait: bool) -> Value {
    json!({
        "task_type": "dummy_short", "max_attempts": checkpoints,
        "parameters": { "checkpoints": checkpoints, "wait": wait },
    })
}

pub(crate) fn start() -> Server {
    Server::start_self(TempDir::new().unwrap(), SERVER, &[ASK])
}

/// Kills the server and starts another one in the same folder.
pub(crate) fn crash(server: &mut Server) {
    server.restart_self(SERVER, &[ASK]);
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_if_it_is_asked_to() {
    if std::env::var_os(ASK.0).is_none() {
        return;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let mut config = Config::load(Settings::default(), None).unwrap();
    config.listen = "127.0.0.1:0".to_owned();
    let mut registry = TaskRegistry::builtin();
    registry.replace::<Resumes>(TaskType::DummyShort, json!({}));
    program::register(&mut registry);
    let app = App::build(config, registry).await.unwrap();
    app.serve(CancellationToken::new()).await;
}
