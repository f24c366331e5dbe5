//! `task-server watch`: follows tasks to their ends.

use clap::Args;
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{Client, Connection, Request};
use super::columns::Columns;
use super::events::{News, follow};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome, listen_for};
use super::filters::Filters;
use super::ids::{TaskName, resolve};
use super::list::next_query;
use super::record::{Record, Task};
use super::terminal::{even_unread, say};
use super::view::View;
use crate::http::MAX_LIMIT;
use crate::task::TaskId;

const EXAMPLES: &str = "\
Examples:
  task-server watch 01a20732-f5d8-72b0-90ab-6e8c0dbec33e
  task-server watch $(task-server list --status running --json | jq -r '.[].task_id')
  task-server watch --tag plate=7
  task-server watch ID --json | jq -c '[.status, .progress]'   # one JSON document an event

Ctrl-C ends the watching; the tasks go on. If several tasks ended in several ways, the worst counts.";

/// Most tasks that are watched at once: each has an event stream.
const MAX_WATCHED: usize = 1000;

/// Shows how tasks get on until all have ended, also across restarts of the server: those that are named, or
/// the unfinished ones that match the filters
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct WatchArgs {
    /// Tasks to watch
    #[arg(value_name = "ID", conflicts_with = "Filters")]
    ids: Vec<TaskName>,

    #[command(flatten)]
    filters: Filters,

    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: WatchArgs) -> Outcome {
    let connection = args.connection;
    let client = Client::new(&connection)?;
    let mut ids: Vec<_> = match (args.ids.is_empty(), args.filters.is_empty()) {
        (true, true) => {
            let message = "name tasks by their ids, or with --status, --type or --tag";
            return Err(Failure::new(Exit::Usage, message));
        }
        (true, false) => matching(&client, &args.filters).await?,
        (false, _) => resolve(&client, &args.ids).await?.iter().map(TaskId::to_string).collect(),
    };
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    if ids.is_empty() {
        say("no unfinished task matches, so there is nothing to watch");
    }
    let view = if connection.json { View::Json } else { View::for_people(ids.len()) };
    let watched = to_their_ends(&client, &connection, &ids, view).await?;
    if !connection.json && !watched.records.is_empty() {
        even_unread(Columns::default().print_table(&watched.records, true))?;
    }
    Ok(watched.exit)
}

/// The unfinished tasks that match.
async fn matching(client: &Client, filters: &Filters) -> Result<Vec<String>, Failure> {
    let mut query = filters.unfinished().query(Some(MAX_LIMIT));
    let mut ids = Vec::new();
    loop {
        let response = client.send(Request::get(format!("/tasks?{query}"))).await?;
        let next = next_query(&response);
        let text = client.text(response).await?;
        let page: Vec<Task> = client.parse(&text)?;
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
