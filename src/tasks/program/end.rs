//! The end of a program: a result or an error.

use serde_json::{Value, json};

use super::events::ReportedError;
use super::manifest::Manifest;
use super::supervisor::Ended;
use super::values::human_bytes;
use crate::task::{TaskError, TaskResult};

/// Names of the signals that end programs.
const SIGNALS: [(i32, &str); 11] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (13, "SIGPIPE"),
    (15, "SIGTERM"),
];

/// Turns the end of a program into the result of its task. `last_line` is the last one of standard error.
pub(super) fn conclude(
    manifest: &Manifest,
    ended: Ended,
    reported: Option<ReportedError>,
    last_line: Option<String>,
    result: Result<Option<Value>, String>,
) -> TaskResult {
    let permanent = |code| manifest.permanent.contains(&code);
    if let Some(ReportedError { message, permanent: reported }) = reported
        && let Ended::Code(code) = ended
    {
        return Err(failed(message, reported || permanent(code)));
    }
    let (how, permanent) = match ended {
        Ended::Code(0) => {
            let result = result.map_err(TaskError::permanent)?;
            return Ok(result.unwrap_or_else(|| json!({ "exit_code": 0 })));
        }
        Ended::Code(code) => (format!("exit code {code}"), permanent(code)),
        Ended::Signal(signal) => {
            let name = SIGNALS.iter().find(|(number, _)| *number == signal);
            let name =
                name.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned());
            (format!("killed by {name}"), false)
        }
        Ended::MemoryExceeded(used) => {
            let limit = human_bytes(manifest.memory.unwrap_or(used));
            return Err(failed(format!("used more than {limit} of memory"), false));
        }
        Ended::NotStarted(reason) => {
            return Err(failed(format!("cannot start the program: {reason}"), false));
        }
        Ended::SupervisorLost => {
            return Err(failed("the supervisor of the program was killed".to_owned(), false));
        }
    };
    let message = last_line.map_or_else(|| how.clone(), |line| format!("{line} ({how})"));
    Err(failed(message, permanent))
}

fn failed(message: String, permanent: bool) -> TaskError {
    TaskError::Failed { message, permanent }
}
