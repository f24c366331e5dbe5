//! `task-server stats`: how many tasks there are, and what happened lately.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Outcome};
use super::terminal::{escape, print_json, print_table};

/// Shows how many tasks there are by status, and what happened in the last hour
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Deserialize)]
struct Stats {
    counts: BTreeMap<String, u64>,
    minutes: Vec<BTreeMap<String, serde_json::Value>>,
}

pub(super) async fn run(args: StatsArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    let json = client.json(Request::get("/stats")).await?;
    if args.connection.json {
        print_json(&json)?;
        return Ok(Exit::Done);
    }
    let Stats { counts, minutes } = client.parse(&json)?;
    let lately = |event: &str| -> u64 {
        minutes.iter().filter_map(|minute| minute.get(event)?.as_u64()).sum()
    };
    let mut rows = vec![vec!["STATUS".to_owned(), "TASKS".to_owned(), "LAST HOUR".to_owned()]];
    for (status, count) in &counts {
        // Pending tasks came from submissions; what runs is counted when it ends.
        let hour = match status.as_str() {
            "pending" => format!("{} submitted", lately("submitted")),
            "running" => String::new(),
            ended => lately(ended).to_string(),
        };
        rows.push(vec![escape(status), count.to_string(), hour]);
    }
    print_table(&rows, Some(0))?;
    Ok(Exit::Done)
}
