//! `task-server log`: shows what a task has said.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::ids::{TaskName, resolve_one};
use super::terminal::{escape, is_interactive};

const EXAMPLES: &str = "\
Examples:
  task-server log 0dbec33e
  task-server log 0dbec33e -f --tail 20
  task-server log 0dbec33e --attempt 1 > attempt-1.log";

/// Silence after which a follower checks that the server is still there.
const CHECK_AFTER: Duration = Duration::from_secs(30);

/// Shows the log of a task: what its code says, with times
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct LogArgs {
    /// Task id, or its last 8 digits
    #[arg(value_name = "ID")]
    id: TaskName,

    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,

    /// Show only the last N lines
    #[arg(long, value_name = "N")]
    tail: Option<u32>,

    /// Number of the attempt [default: the last one]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,

    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: LogArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    let task = format!("/tasks/{}", resolve_one(&client, args.id).await?);
    let mut query = vec![format!("follow={}", args.follow)];
    query.extend(args.tail.map(|lines| format!("tail={lines}")));
    query.extend(args.attempt.map(|number| format!("attempt={number}")));
    let path = format!("{task}/log?{}", query.join("&"));
    let mut body = client.send(Request::get(path)).await?.into_body();
    let mut output = Output { neutral: is_interactive(), line: Vec::new() };
    while let Some(part) = next(&client, &mut body, &task).await? {
        output.write(&part)?;
    }
    Ok(Exit::Done)
}

/// Returns the next part of the log. A silent task is not a server that is gone.
async fn next(client: &Client, body: &mut Incoming, task: &str) -> Result<Option<Bytes>, Failure> {
    loop {
        match timeout(CHECK_AFTER, client.part(body)).await {
            Ok(part) => return part,
            Err(_) => drop(client.json(Request::get(task)).await?),
        }
    }
}

/// Standard output. On a terminal, a log must not control it.
struct Output {
    neutral: bool,
    /// Begin of a line whose end is not here yet.
    line: Vec<u8>,
}

impl Output {
    fn write(&mut self, part: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.neutral {
            out.write_all(part)?;
            return out.flush();
        }
        self.line.extend_from_slice(part);
        let whole = self.line.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let rest = self.line.split_off(whole);
        let lines = std::mem::replace(&mut self.line, rest);
        out.write_all(neutral(&String::from_utf8_lossy(&lines)).as_bytes())?;
        out.flush()
    }
}

/// Escapes all but tabs and the ends of lines.
fn neutral(lines: &str) -> String {
    lines.split_inclusive(['\t', '\n']).fold(
        String::with_capacity(lines.len()),
        |mut text, part| {
            let kept = part.len() - usize::from(part.ends_with(['\t', '\n']));
            text.push_str(&escape(&part[..kept]));
            text.push_str(&part[kept..]);
            text
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_cannot_control_the_terminal() {
        assert_eq!(neutral("a\tb\x1b[2J\r\nc"), "a\tb\\u{1b}[2J\\r\nc");
        assert_eq!(neutral("\n\n"), "\n\n");
        assert_eq!(neutral(""), "");
    }
}
