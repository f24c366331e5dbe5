//! Bodies of submissions.

use serde_json::{Value, json};
use task_server::task::Timestamp;

use crate::crash::outputs;
use crate::crash::plan::{Kind, Submission};

/// Body of a submission. Its tags name the submission, and its connection and round.
pub(crate) fn body(submission: &Submission, mark: &str, batch: &str) -> Value {
    let sleeper = |seconds: f64| {
        json!({
            "task_type": "dummy_short",
            "parameters": { "duration": seconds, "steps": 4 },
        })
    };
    let mut body = match submission.kind {
        Kind::Nothing => sleeper(0.0),
        Kind::Slow { millis } => {
            let mut body = sleeper(millis as f64 / 1000.0);
            // A timeout that is never reached.
            body["timeout_seconds"] = 3600.into();
            body
        }
        Kind::Endless => sleeper(1e6),
        Kind::TimesOut { millis, attempts } => {
            let mut body = sleeper(1e6);
            body["timeout_seconds"] = (millis as f64 / 1000.0).into();
            body["max_attempts"] = attempts.into();
            body
        }
        Kind::Later { millis } => {
            let mut body = sleeper(0.0);
            let time = Timestamp::now().as_micros() + 1000 * millis as i64;
            body["run_at"] = Timestamp::from_micros(time).to_string().into();
            body
        }
        Kind::File { input, output } => outputs::submission(input, output),
        Kind::Fails { attempts } => {
            let mut body = outputs::submission(0, 0);
            body["input_file_path"] = "absent.txt".into();
            // Named after the submission, so that it is never in use.
            body["output_file_path"] = format!("out/never-{mark}.json").into();
            body["max_attempts"] = attempts.into();
            body
        }
    };
    body["priority"] = submission.priority.into();
    body["tags"] = json!({ "mark": mark, "batch": batch });
    body
}
