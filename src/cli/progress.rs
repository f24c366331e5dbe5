//! `task-server progress`: reports progress from a script that runs as a task.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::Args;
use rustix::fs::OFlags;
use serde_json::json;

use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use crate::tasks::MAX_EVENT_BYTES;

const EXAMPLES: &str = "\
Examples, in a script that the server runs as a task:
  task-server progress 42
  task-server progress 42 \"FOV 5/12\"";

/// Reports progress from a script that runs as a task
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct ProgressArgs {
    /// Percentage, 0 to 100
    #[arg(value_name = "PERCENT")]
    percent: f64,

    /// Short message for users
    #[arg(value_name = "MESSAGE")]
    message: Option<String>,

    /// FIFO of the task's events
    #[arg(long, env = "TASK_EVENTS", value_name = "FILE", hide = true)]
    events: Option<PathBuf>,
}

pub(super) fn run(args: ProgressArgs) -> Outcome {
    let Some(path) = args.events.filter(|path| !path.as_os_str().is_empty()) else {
        let advice = "this is no task: the server sets TASK_EVENTS for the programs that it runs";
        return Err(Failure::new(Exit::Usage, advice));
    };
    let mut message = args.message;
    let event = loop {
        let event = json!({ "progress": args.percent, "message": message }).to_string();
        match &mut message {
            // Cuts characters until the event fits.
            Some(text) if event.len() > MAX_EVENT_BYTES => {
                let excess = (event.len() - MAX_EVENT_BYTES).div_ceil(6);
                text.truncate(text.floor_char_boundary(text.len().saturating_sub(excess)));
            }
            _ => break event + "\n",
        }
    };
    let flags = OFlags::NONBLOCK.bits() as i32;
    let sent = File::options()
        .write(true)
        .custom_flags(flags)
        .open(&path)
        .and_then(|mut events| events.write_all(event.as_bytes()));
    match sent {
        // A server that is too busy to read misses this update, and gets the next.
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(Failure::new(
            Exit::Failed,
            format!("cannot write to `{}`: {error}", path.display()),
        )),
        _ => Ok(Exit::Done),
    }
}
