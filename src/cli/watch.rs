//! `task-server watch`: follows tasks to their ends.

use clap::Args;
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{Client, Connection};
use super::events::{News, follow};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome, listen_for};
use super::record::{Record, print_records};
use super::terminal::even_unread;
use super::view::View;
use crate::task::TaskId;

const EXAMPLES: &str = "\
Examples:
  task-server watch 01a20732-f5d8-72b0-90ab-6e8c0dbec33e
  task-server watch $(task-server list --status running --json | jq -r '.[].task_id')
  task-server watch ID --json | jq -c '[.status, .progress]'   # one JSON document an event

Ctrl-C ends the watching; the tasks go on. If several tasks ended in several ways, the worst counts.";

/// Shows how tasks get on until all have ended, also across restarts of the server
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct WatchArgs {
    /// Tasks to watch
    #[arg(required = true, value_name = "ID")]
    ids: Vec<TaskId>,

    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: WatchArgs) -> Outcome {
    let connection = args.connection;
    let client = Client::new(&connection)?;
    let view = if connection.json { View::Json } else { View::for_people() };
    let mut ids: Vec<_> = args.ids.iter().map(TaskId::to_string).collect();
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    let watched = to_their_ends(&client, &connection, &ids, view).await?;
    if !connection.json && !watched.records.is_empty() {
        even_unread(print_records(&watched.records, true))?;
    }
    Ok(watched.exit)
}

/// What came of watching.
pub(super) struct Watched {
    /// The tasks that have ended, in the order in which they were named.
    pub(super) records: Vec<Record>,
    pub(super) exit: Exit,
}

/// Watches until each task has ended or cannot be watched any more.
///
/// # Errors
/// If Ctrl-C ends it.
pub(super) async fn to_their_ends(
    client: &Client,
    connection: &Connection,
    ids: &[String],
    mut view: View,
) -> Result<Watched, Failure> {
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let (tell, mut news) = mpsc::unbounded_channel();
    let mut followers = JoinSet::new();
    for id in ids {
        followers.spawn(follow(client.clone(), id.clone(), tell.clone()));
    }
    let mut records = Vec::new();
    let mut failed = None;
    let mut lost = 0_usize;
    loop {
        tokio::select! {
            Some(news) = news.recv() => show(news, &mut view, &mut lost)?,
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
    while let Ok(news) = news.try_recv() {
        show(news, &mut view, &mut lost)?;
    }
    records.sort_by_key(|record| ids.iter().position(|id| *id == record.task.task_id));
    let exit = failed.unwrap_or_else(|| worst(&records));
    Ok(Watched { records, exit })
}

/// Shows a piece of news; `lost` counts the tasks that are out of reach.
fn show(news: News, view: &mut View, lost: &mut usize) -> Result<(), Failure> {
    match news {
        News::State(record) => view.show(&record)?,
        News::Lost => {
            if *lost == 0 {
                view.note("lost the connection to the server, trying to reach it again");
            }
            *lost += 1;
        }
        News::Back => {
            *lost -= 1;
            if *lost == 0 {
                view.note("connected again");
            }
        }
    }
    Ok(())
}

/// A failed task counts more than a cancelled one, and that more than one that has completed.
fn worst(records: &[Record]) -> Exit {
    let ends: Vec<_> = records.iter().filter_map(Record::exit).collect();
    let found = [Exit::Failed, Exit::Cancelled].into_iter().find(|exit| ends.contains(exit));
    found.unwrap_or(Exit::Done)
}

fn interrupted(connection: &Connection, ids: &[String]) -> Failure {
    let ids = ids.join(" ");
    let url = connection.url_option();
    let message = format!(
        "interrupted, but what was submitted goes on\n\
         to watch it again: task-server watch{url} {ids}\n\
         to cancel it:      task-server cancel{url} {ids}"
    );
    Failure::new(Exit::Interrupted, message)
}
