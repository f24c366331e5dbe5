//! A task that says something, and fails its first attempt if it was told to wait for a file.

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use task_server::task::{LogSource, Task, TaskContext, TaskError, TaskResult, async_trait};

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Talker {
    say: String,
    /// File to wait for; none if empty.
    then: String,
}

#[async_trait]
impl Task for Talker {
    async fn execute(self: Box<Self>, ctx: TaskContext) -> TaskResult {
        let attempt = ctx.task_info().attempt;
        if self.say == "flood" {
            let line = "flood".repeat(200);
            ctx.run_blocking(move |ctx| {
                (0..20_000).for_each(|_| ctx.log().line(LogSource::Stdout, &line));
                Ok(())
            })
            .await?;
        } else {
            ctx.log().line(LogSource::Stdout, &self.say);
        }
        ctx.run_blocking(|_| {
            tracing::debug!("too fine for a log");
            tracing::info!(n = 7, "on a thread");
            Ok(())
        })
        .await?;
        while !self.then.is_empty() && !Path::new(&self.then).exists() {
            ctx.sleep(Duration::from_millis(10)).await?;
        }
        ctx.log().line(LogSource::Stderr, format!("end of attempt {attempt}"));
        match attempt {
            1 if !self.then.is_empty() => Err(TaskError::failed("not yet")),
            _ => Ok(json!({})),
        }
    }
}
