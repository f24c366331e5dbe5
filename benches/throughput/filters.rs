//! Every pair and triple of list filters over a long history, page by page, while another client
//! reads finished tasks one by one. A list must do a bounded amount of work for any filters and
//! must not block other requests.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::sleep;

use crate::args::Args;
use crate::client::{Connection, get};
use crate::common::server::Server;
use crate::common::table::Table;
use crate::history::{self, History, Mixed, millisecond};
use crate::report::milliseconds;
use crate::requests::Random;
use crate::submits::dummy;

/// Time limits of a page, and of a concurrent read of one task.
const PAGE: Duration = Duration::from_millis(200);
const POINT: Duration = Duration::from_millis(50);
/// Number of pages read per list.
const PAGES: usize = 10;
/// Maximum page size.
const LIMIT: usize = 1000;
/// Pause of the other client between reads.
const PAUSE: Duration = Duration::from_millis(1);

/// A filter: its name, and values that match few and many tasks.
type Filter = (&'static str, Vec<String>);

/// Worst times of some requests, and the query that took longest.
#[derive(Clone, Debug, Default)]
struct Worst {
    page: Duration,
    of: String,
    point: Duration,
    refused: usize,
}

/// Runs all queries. Returns false if one was too slow.
pub(crate) async fn run(args: &Args) -> bool {
    let begin = Instant::now();
    let history = History::make(args.rows, Mixed::Adverse).await;
    println!("made {} rows in {:.0} s", args.rows, begin.elapsed().as_secs_f64());
    let server = Server::start_in(history.copy(), &["--max-running", "3"]);
    let mut connection = Connection::open(server.address()).await;
    // Running tasks are the newest, so that none matches a range of older times.
    for _ in 0..3 {
        connection.exchange(&dummy(3600.0, 1)).await;
    }
    let slowest_look = Rc::new(Cell::new(Duration::ZERO));
    let looks = tokio::task::LocalSet::new();
    let address = server.address().to_owned();
    let looker = look(address, args.rows, Rc::clone(&slowest_look));
    let asked = looks.run_until(async {
        let looker = tokio::task::spawn_local(looker);
        let asked = ask_for_all(server.address(), args, &slowest_look).await;
        looker.abort();
        asked
    });
    let (table, met) = asked.await;
    println!("\n{table}");
    println!("peak memory of the server: {} MB", server.peak_memory() / 1_000_000);
    met
}

async fn ask_for_all(
    address: &str,
    args: &Args,
    slowest_look: &Cell<Duration>,
) -> (Table<6>, bool) {
    let filters = filters(args.rows);
    let mut table = Table::new([
        "filters",
        "worst page",
        "worst look",
        "refused",
        "",
        "asked for the worst page",
    ]);
    let mut met = true;
    for set in sets(filters.len()) {
        let chosen: Vec<_> = set.iter().map(|&index| &filters[index]).collect();
        let name = chosen.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" + ");
        if !args.wants(&name) {
            continue;
        }
        eprintln!("asking for {name}");
        let mut worst = Worst::default();
        slowest_look.set(Duration::ZERO);
        for query in queries(&chosen) {
            follow(address, &query, &mut worst).await;
        }
        worst.point = slowest_look.get();
        let is_met = worst.page < PAGE && worst.point < POINT && worst.refused == 0;
        met &= is_met;
        table.push([
            name,
            milliseconds(worst.page),
            milliseconds(worst.point),
            worst.refused.to_string(),
            if is_met { String::new() } else { "MISSED".to_owned() },
            worst.of,
        ]);
    }
    (table, met)
}

/// Reads the first pages of a list.
async fn follow(address: &str, query: &str, worst: &mut Worst) {
    let mut connection = Connection::open(address).await;
    let mut next = Some(format!("/tasks?limit={LIMIT}&{query}"));
    for _ in 0..PAGES {
        let Some(path) = next else { break };
        let begin = Instant::now();
        let answer = connection.answer(&get(&path)).await;
        let time = begin.elapsed();
        if time > worst.page {
            (worst.page, worst.of) = (time, query.to_owned());
        }
        worst.refused += usize::from(answer.status != 200);
        next = answer.next;
    }
}

/// Reads random finished tasks and records the longest time.
async fn look(address: String, tasks: u64, slowest: Rc<Cell<Duration>>) {
    let mut random = Random::new(0);
    let mut connection = Connection::open(&address).await;
    loop {
        let request = get(&format!("/tasks/{}", history::id(random.below(tasks))));
        let begin = Instant::now();
        let answer = connection.answer(&request).await;
        let time = begin.elapsed();
        // A refusal counts as a second.
        let time = if answer.status == 200 { time } else { time.max(Duration::from_secs(1)) };
        slowest.set(slowest.get().max(time));
        sleep(PAUSE).await;
    }
}

/// Filters with the values of [`Mixed::Adverse`].
fn filters(rows: u64) -> Vec<Filter> {
    let values = |values: &[&str]| values.iter().map(|it| (*it).to_owned()).collect();
    let time = |row: u64| {
        let time = i64::try_from(millisecond(row)).unwrap();
        Timestamp::from_millisecond(time).unwrap().to_string()
    };
    vec![
        ("status", values(&["completed", "failed", "pending", "running"])),
        ("task_type", values(&["dummy_short", "image_process"])),
        ("created_after", vec![time(0), time(rows / 10 * 9)]),
        ("created_before", vec![time(2 * rows), time(rows / 10)]),
        ("tag.project", values(&["a", "rare", "none"])),
    ]
}

/// All pairs and triples of `count` indices.
fn sets(count: usize) -> Vec<Vec<usize>> {
    let chosen = |bits: usize| (0..count).filter(|index| bits >> index & 1 == 1).collect();
    let sets = (0..1 << count).map(chosen);
    let mut sets: Vec<Vec<usize>> =
        sets.filter(|set: &Vec<_>| matches!(set.len(), 2 | 3)).collect();
    sets.sort_by_key(Vec::len);
    sets
}

/// All combinations of the filters' values, as query strings.
fn queries(filters: &[&Filter]) -> Vec<String> {
    filters.iter().fold(vec![String::new()], |queries, (name, values)| {
        let with = |query: &String| -> Vec<String> {
            values.iter().map(|value| format!("{query}&{name}={value}")).collect()
        };
        let queries: Vec<_> = queries.iter().flat_map(with).collect();
        queries.into_iter().map(|query| query.trim_start_matches('&').to_owned()).collect()
    })
}
