//! `task-server watch`: follows tasks until they have ended.

use std::collections::HashSet;

use clap::Args;
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{Client, Connection};
use super::columns::Columns;
use super::events::{Update, follow};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome, listen_for};
use super::filters::Filters;
use super::ids::resolve;
use super::record::{Record, Task};
use super::selection::Selection;
use super::terminal::{ignore_broken_pipe, report};
use super::view::View;
use crate::http::MAX_LIMIT;
use crate::task::TaskId;

const EXAMPLES: &str = "\
Examples:
  task-server watch 01a20732-f5d8-72b0-90ab-6e8c0dbec33e
  task-server watch $(task-server list --status running --json | jq -r '.[].task_id')
  task-server watch --tag plate=7
  task-server watch ID --json | jq -c '[.status, .progress]'   # one JSON document per event

Ctrl-C stops watching, not the tasks. The exit code is that of the worst end.";

/// Maximum number of watched tasks, each of which needs an event stream.
const MAX_WATCHED: usize = 1000;

/// Shows the progress of the given tasks, or of unfinished tasks that match the filters, until all have
/// ended, also across restarts of the server
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct WatchArgs {
    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(WatchArgs { selection, connection }: WatchArgs) -> Outcome {
    let client = Client::new(&connection)?;
    selection.check()?;
    let mut ids: Vec<_> = match selection.ids.is_empty() {
        true => matching(&client, selection.filters).await?,
        false => resolve(&client, &selection.ids).await?.iter().map(TaskId::to_string).collect(),
    };
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    if ids.is_empty() {
        report("no unfinished task matches, nothing to watch");
    }
    let view = if connection.json { View::Json } else { View::on_stderr(ids.len()) };
    let watched = watch_all(&client, &connection, &ids, view).await?;
    if !connection.json && !watched.records.is_empty() {
        ignore_broken_pipe(Columns::default().print_table(&watched.records, true))?;
    }
    Ok(watched.exit)
}

/// Returns the ids of the unfinished tasks that match.
async fn matching(client: &Client, filters: Filters) -> Result<Vec<String>, Failure> {
    let mut query = filters.unfinished().query(Some(MAX_LIMIT));
    let mut ids = Vec::new();
    loop {
        let (page, next) = client.page(&query).await?;
        let page: Vec<Task> = client.parse(&page)?;
        let unfinished = page.into_iter().filter(|task| task.exit().is_none());
        ids.extend(unfinished.map(|task| task.task_id));
        if ids.len() > MAX_WATCHED {
            let message = format!(
                "more than {MAX_WATCHED} unfinished tasks match, too many to watch: narrow the filters"
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        match next {
            Some(next) => query = next,
            None => return Ok(ids),
        }
    }
}

pub(super) struct Watched {
    /// Final records, in the order of the ids.
    pub(super) records: Vec<Record>,
    pub(super) exit: Exit,
}

/// Watches tasks until each has ended or cannot be watched any longer.
///
/// # Errors
/// On Ctrl-C.
pub(super) async fn watch_all(
    client: &Client,
    connection: &Connection,
    ids: &[String],
    mut view: View,
) -> Result<Watched, Failure> {
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let (sender, mut updates) = mpsc::unbounded_channel();
    let mut followers = JoinSet::new();
    for id in ids {
        followers.spawn(follow(client.clone(), id.clone(), sender.clone()));
    }
    let mut records = Vec::new();
    let mut failed = None;
    let mut lost = 0_usize;
    loop {
        tokio::select! {
            Some(update) = updates.recv() => show(update, &mut view, &mut lost)?,
            ended = followers.join_next() => match ended {
                None => break,
                Some(Ok(Ok(record))) => records.push(record),
                Some(Ok(Err(failure))) => {
                    view.note(&failure.message);
                    failed.get_or_insert(failure.exit);
                }
                Some(Err(error)) => return Err(Failure::new(Exit::Internal, error.to_string())),
            },
            _ = interrupt.recv() => return Err(interrupted(connection, ids)),
        }
    }
    while let Ok(update) = updates.try_recv() {
        show(update, &mut view, &mut lost)?;
    }
    records.sort_by_key(|record| ids.iter().position(|id| *id == record.task.task_id));
    let exit = failed.unwrap_or_else(|| worst(&records));
    Ok(Watched { records, exit })
}

/// Shows an update; `lost` counts the followers without a connection, so that one outage is reported
/// once.
fn show(update: Update, view: &mut View, lost: &mut usize) -> Result<(), Failure> {
    match update {
        Update::State(record) => view.show(&record)?,
        Update::Lost => {
            if *lost == 0 {
                view.note("lost the connection to the server, reconnecting");
            }
            *lost += 1;
        }
        Update::Back => {
            *lost -= 1;
            if *lost == 0 {
                view.note("connected again");
            }
        }
    }
    Ok(())
}

/// Ranks failed above cancelled above completed.
fn worst(records: &[Record]) -> Exit {
    let ends: Vec<_> = records.iter().filter_map(|record| record.task.exit()).collect();
    let found = [Exit::Failed, Exit::Cancelled].into_iter().find(|exit| ends.contains(exit));
    found.unwrap_or(Exit::Done)
}

fn interrupted(connection: &Connection, ids: &[String]) -> Failure {
    let ids = ids.join(" ");
    let url = connection.url_option();
    let message = format!(
        "interrupted, but submitted tasks go on\n\
         to watch again: task-server watch{url} {ids}\n\
         to cancel:      task-server cancel{url} {ids}"
    );
    Failure::new(Exit::Interrupted, message)
}
