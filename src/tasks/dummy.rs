//! Tasks that only sleep, for trying out the server.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::task::{Task, TaskContext, TaskResult, async_trait};

/// Upper limit of `duration`: a hundred years, in seconds.
const MAX_DURATION: f64 = 100.0 * 365.25 * 86_400.0;

/// Upper limit of `steps`: without pauses, this many take seconds.
const MAX_STEPS: u32 = 1_000_000;

/// Sleeps for `duration` seconds in `steps` equal steps, and reports progress after each.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DummyTask {
    /// Total time, in seconds.
    #[schemars(range(min = 0.0, max = MAX_DURATION))]
    duration: f64,
    /// Number of steps.
    #[schemars(range(min = 1, max = MAX_STEPS))]
    steps: u32,
}

#[async_trait]
impl Task for DummyTask {
    async fn execute(self: Box<Self>, ctx: TaskContext) -> TaskResult {
        let steps = f64::from(self.steps);
        let pause = Duration::from_secs_f64(self.duration / steps);
        for step in 1..=self.steps {
            ctx.sleep(pause).await?;
            ctx.update_progress(
                100.0 * f64::from(step) / steps,
                format!("Processing step {step}/{}", self.steps),
            );
        }
        Ok(json!({
            "message": "Dummy task completed",
            "steps_completed": self.steps,
            "duration": self.duration,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::testing::TestRun;

    #[tokio::test]
    async fn a_dummy_reports_every_step_and_tells_what_it_did() {
        let run = TestRun::new(std::path::Path::new("."), None, None);
        let result = run.run(Box::new(DummyTask { duration: 0.0, steps: 3 })).await.unwrap();
        assert_eq!(
            result,
            json!({ "message": "Dummy task completed", "steps_completed": 3, "duration": 0.0 })
        );
        assert_eq!(run.progress.read().percent, 100.0);
        assert_eq!(run.progress.read().message, "Processing step 3/3");
    }

    #[tokio::test]
    async fn a_dummy_in_a_hurry_lets_others_go_first() {
        let run = TestRun::new(std::path::Path::new("."), None, None);
        let dummy = run.run(Box::new(DummyTask { duration: 0.0, steps: 100_000 }));
        let other = async {
            tokio::task::yield_now().await;
            run.progress.read().percent
        };
        let (result, percent) = tokio::join!(dummy, other);
        assert!(result.is_ok() && percent < 1.0, "{percent}");
    }

    #[tokio::test]
    async fn a_cancelled_dummy_wakes_at_once() {
        let run = TestRun::new(std::path::Path::new("."), None, None);
        run.token.cancel();
        let result = run.run(Box::new(DummyTask { duration: 1e9, steps: 1 })).await;
        assert!(matches!(result, Err(crate::task::TaskError::Cancelled)));
    }
}
