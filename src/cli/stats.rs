//! `task-server stats`: task counts, now and over the last hour.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Outcome};
use super::terminal::{escape, print_json, print_table};

/// Shows the number of tasks by status, now and over the last hour
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
    let last_hour = |event: &str| -> u64 {
        minutes.iter().filter_map(|minute| minute.get(event)?.as_u64()).sum()
    };
    let mut rows = vec![["STATUS", "TASKS", "LAST HOUR"].map(str::to_owned).to_vec()];
    for (status, count) in &counts {
        // The server counts submissions and ends, not starts.
        let hour = match status.as_str() {
            "pending" => format!("{} submitted", last_hour("submitted")),
            "running" => String::new(),
            ended => last_hour(ended).to_string(),
        };
        rows.push(vec![escape(status), count.to_string(), hour]);
    }
    print_table(&rows, Some(0))?;
    Ok(Exit::Done)
}
