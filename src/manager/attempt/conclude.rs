//! Conclusion of an attempt: a result and a published output, another attempt, or a failure.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tracing::{info, warn};

use super::state::{Attempt, EndRight};
use crate::store::{AttemptEnd, CANCELLED_MESSAGE};
use crate::task::{Output, TaskError, TaskResult, TaskStatus, shorten, with_causes};

/// Maximum size of a result, in bytes of JSON.
pub(crate) const MAX_RESULT_BYTES: usize = 1024 * 1024;
/// Maximum length of a stored error, in bytes.
const MAX_ERROR_BYTES: usize = 16 * 1024;
/// Backoff before the second attempt; doubles for each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Maximum backoff.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(600);

/// Cause of the end of an attempt.
pub(super) enum Outcome {
    Returned(TaskResult),
    Panicked(String),
    TimedOut(f64),
    /// The server is stopping.
    Interrupted,
    /// This build cannot make the task from its row, with the reason.
    Unrunnable(String),
}

/// Decides how an attempt ends, and publishes its output if it succeeded.
pub(super) async fn conclude(
    attempt: &Attempt,
    outcome: Outcome,
    _end_right: EndRight,
) -> AttemptEnd {
    let output = attempt.output.lock().take();
    let info = &attempt.claimed;
    let mut end = AttemptEnd::pending(attempt.seq, attempt.epoch, info.task_id);
    end.progress = attempt.progress.read().percent;
    let finished = match outcome {
        Outcome::Returned(Ok(result)) => finish(attempt, &result, output.as_ref()).await,
        Outcome::Returned(Err(TaskError::Cancelled)) => {
            Err(Failure::of("the task stopped as if it was cancelled, but nobody asked for that"))
        }
        Outcome::Returned(Err(TaskError::Failed { message, permanent })) => {
            Err(Failure { message, permanent })
        }
        Outcome::Panicked(message) => Err(Failure::of(format!("the task panicked: {message}"))),
        Outcome::TimedOut(seconds) => {
            Err(Failure::of(format!("the task did not end within its timeout of {seconds} s")))
        }
        Outcome::Interrupted => {
            end.progress = 0.0;
            end.attempt_given_back = true;
            Ok(None)
        }
        Outcome::Unrunnable(reason) => {
            warn!(reason, "cannot run this task before the next start");
            end.message = reason;
            end.progress = 0.0;
            (end.attempt_given_back, end.unrunnable) = (true, true);
            Ok(None)
        }
    };
    end.cancel_requested_at = attempt.finish();
    match finished {
        // Cancellation takes precedence over any other outcome.
        _ if end.cancel_requested_at.is_some() => {
            end.status = TaskStatus::Cancelled;
            end.message = CANCELLED_MESSAGE.to_owned();
        }
        Ok(Some(result)) => {
            end.status = TaskStatus::Completed;
            end.progress = 100.0;
            end.message = "Task completed successfully".to_owned();
            end.result = Some(result);
        }
        Ok(None) => {}
        Err(failure) => fail(&mut end, failure, info.attempt, info.max_attempts),
    }
    if let Some(output) = output.filter(|_| end.status != TaskStatus::Completed) {
        // A folder may take long.
        let _ = tokio::task::spawn_blocking(move || output.discard()).await;
    }
    end
}

/// Failure of an attempt.
struct Failure {
    message: String,
    permanent: bool,
}

impl Failure {
    fn of(message: impl Into<String>) -> Self {
        Self { message: message.into(), permanent: false }
    }
}

/// Publishes the output of a task that returned `Ok`, unless cancellation was requested before.
async fn finish(
    attempt: &Attempt,
    result: &Value,
    output: Option<&Output>,
) -> Result<Option<Box<RawValue>>, Failure> {
    let result = serde_json::value::to_raw_value(result)
        .map_err(|error| Failure::of(with_causes(&error)))?;
    if result.get().len() > MAX_RESULT_BYTES {
        return Err(Failure {
            message: format!(
                "the result is {} bytes of JSON, more than the limit of {MAX_RESULT_BYTES}: \
                 write it to the output file instead",
                result.get().len()
            ),
            permanent: true,
        });
    }
    if let Some(output) = output {
        on_disk(output, Output::sync).await?;
        if attempt.finish().is_none() {
            on_disk(output, Output::publish).await?;
        }
    }
    Ok(Some(result))
}

/// Runs a step of publishing on a blocking thread.
async fn on_disk(output: &Output, step: fn(&Output) -> Result<(), String>) -> Result<(), Failure> {
    let output = output.clone();
    let done = tokio::task::spawn_blocking(move || step(&output)).await;
    done.unwrap_or_else(|error| Err(with_causes(&error))).map_err(Failure::of)
}

/// Schedules another attempt, or fails the task.
fn fail(end: &mut AttemptEnd, failure: Failure, attempt: u32, max_attempts: u32) {
    let Failure { message, permanent } = failure;
    let message = shorten(message, MAX_ERROR_BYTES);
    if permanent || attempt >= max_attempts {
        warn!(error = message, attempt, max_attempts, "task failed");
        end.status = TaskStatus::Failed;
        end.message = format!("Task failed: {message}");
    } else {
        let pause = backoff(attempt);
        info!(error = message, attempt, max_attempts, ?pause, "attempt failed, retrying");
        end.pause = Some(pause);
        end.progress = 0.0;
        end.message = format!(
            "Attempt {attempt} of {max_attempts} failed, next in {:.1} s: {message}",
            pause.as_secs_f64()
        );
    }
    end.error = Some(message);
}

/// Exponential backoff up to a limit, with a jitter of a quarter so that tasks that failed together do
/// not retry together.
fn backoff(attempt: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << (attempt - 1).min(16)).min(MAX_BACKOFF);
    // Each `RandomState` has a random seed, which is random enough here.
    let random = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
    full.mul_f64(0.75 + 0.25 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit_and_varies() {
        for attempt in 1..40 {
            let full = FIRST_BACKOFF.saturating_mul(1 << (attempt - 1).min(16)).min(MAX_BACKOFF);
            let pause = backoff(attempt);
            assert!(pause <= full && pause >= full.mul_f64(0.75), "{attempt}: {pause:?}");
        }
    }
}
