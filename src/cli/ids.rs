//! Task ids on the command line: whole, or shortened as in lists.

use std::str::FromStr;

use serde::Deserialize;

use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal::{age, escape};
use crate::http::MAX_LIMIT;
use crate::task::{TaskId, Timestamp};

/// Number of digits of a short id.
pub(super) const SHORT_LEN: usize = 8;
/// Number of recent tasks searched for a short id.
const MAX_SEARCHED: usize = 20_000;
/// Maximum number of candidates listed for an ambiguous id.
const MAX_LISTED: usize = 10;

#[derive(Clone, Debug)]
pub(super) enum TaskName {
    Id(TaskId),
    /// Last digits of an id, lower case.
    Short(String),
}

impl FromStr for TaskName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let end = text.trim_start_matches('…').to_ascii_lowercase();
        if end.len() == SHORT_LEN && end.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Ok(Self::Short(end));
        }
        Err(format!("invalid task id `{text}`: expected a UUID or its last {SHORT_LEN} digits"))
    }
}

#[derive(Deserialize)]
struct Candidate {
    task_id: TaskId,
    task_type: String,
    status: String,
    created_at: Timestamp,
}

/// Resolves ids, in order.
///
/// # Errors
/// If a short id matches none of the most recent tasks, or several.
pub(super) async fn resolve(client: &Client, names: &[TaskName]) -> Result<Vec<TaskId>, Failure> {
    let is_short = |name: &TaskName| matches!(name, TaskName::Short(_));
    let candidates = match names.iter().any(is_short) {
        true => candidates(client, names).await?,
        false => Vec::new(),
    };
    let resolved = names.iter().map(|name| match name {
        TaskName::Id(id) => Ok(*id),
        TaskName::Short(end) => only(end, &candidates),
    });
    resolved.collect()
}

pub(super) async fn resolve_one(client: &Client, name: TaskName) -> Result<TaskId, Failure> {
    Ok(resolve(client, &[name]).await?[0])
}

/// Returns the recent tasks that match any of the names.
async fn candidates(client: &Client, names: &[TaskName]) -> Result<Vec<Candidate>, Failure> {
    let fits = |task: &Candidate| names.iter().any(|name| ends_with(task, name));
    let mut found = Vec::new();
    let mut seen = 0;
    let mut query = format!("limit={MAX_LIMIT}");
    loop {
        let (page, next) = client.page(&query).await?;
        let page: Vec<Candidate> = client.parse(&page)?;
        seen += page.len();
        found.extend(page.into_iter().filter(fits));
        match next {
            Some(next) if seen < MAX_SEARCHED => query = next,
            _ => return Ok(found),
        }
    }
}

fn ends_with(task: &Candidate, name: &TaskName) -> bool {
    matches!(name, TaskName::Short(end) if task.task_id.to_string().ends_with(end.as_str()))
}

fn only(end: &str, candidates: &[Candidate]) -> Result<TaskId, Failure> {
    let fitting: Vec<_> =
        candidates.iter().filter(|task| task.task_id.to_string().ends_with(end)).collect();
    match fitting[..] {
        [task] => Ok(task.task_id),
        [] => {
            let message = format!(
                "no id among the last {MAX_SEARCHED} tasks ends in {end}: pass the full id"
            );
            Err(Failure::new(Exit::Data, message))
        }
        _ => {
            let line = |task: &&Candidate| {
                let (task_type, status) = (escape(&task.task_type), escape(&task.status));
                format!("{} {task_type} {status} {}", task.task_id, age(task.created_at))
            };
            let lines: Vec<_> = fitting.iter().take(MAX_LISTED).map(line).collect();
            let message = format!(
                "{} ids end in {end}: pass the full id\n{}",
                fitting.len(),
                lines.join("\n")
            );
            Err(Failure::new(Exit::Data, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: &str) -> Candidate {
        let text = |text: &str| text.to_owned();
        let created_at = Timestamp::from_micros(0);
        Candidate {
            task_id: id.parse().unwrap(),
            task_type: text("a"),
            status: text("b"),
            created_at,
        }
    }

    #[test]
    fn a_short_id_must_be_unambiguous() {
        let ids = [
            "01a20732-f5d8-72b0-90ab-6e8c0dbec33e",
            "01a20732-f5d8-72b0-90ab-00000dbec33e",
            "01a20732-f5d8-72b0-90ab-6e8c11111111",
        ];
        let tasks = ids.map(candidate);
        assert_eq!(only("11111111", &tasks).unwrap().to_string(), ids[2]);
        let several = only("0dbec33e", &tasks).unwrap_err().message;
        assert!(several.contains(ids[0]) && several.contains(ids[1]), "{several}");
        assert!(only("22222222", &tasks).unwrap_err().message.contains("22222222"));
    }

    #[test]
    fn a_name_is_a_full_or_a_short_id() {
        for good in ["01a20732-f5d8-72b0-90ab-6e8c0dbec33e", "0dbec33e", "0DBEC33E", "…0dbec33e"]
        {
            assert!(good.parse::<TaskName>().is_ok(), "{good}");
        }
        for bad in ["", "0dbec33", "0dbec33g", "6e8c0dbec33e"] {
            assert!(bad.parse::<TaskName>().is_err(), "{bad}");
        }
    }
}
