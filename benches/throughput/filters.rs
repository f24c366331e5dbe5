//! Every pair and triple of the filters of a list over a long history, page by page, while another
//! client looks at finished tasks one by one: a list costs a bounded amount of work, whatever it is
//! asked for, and holds up nobody.

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

/// How long a page may take, and a look at one task meanwhile.
const PAGE: Duration = Duration::from_millis(200);
const POINT: Duration = Duration::from_millis(50);
/// How many pages of each list are read.
const PAGES: usize = 10;
/// The largest page that can be asked for.
const LIMIT: usize = 1000;
/// How long the other client waits between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// One filter: its name, and values that few and many tasks have.
type Filter = (&'static str, Vec<String>);

/// The worst of some requests, and what was asked.
#[derive(Clone, Debug, Default)]
struct Worst {
    page: Duration,
    of: String,
    point: Duration,
    refused: usize,
}

/// Asks for all of them. False if one was too slow.
pub(crate) async fn run(args: &Args) -> bool {
    let begin = Instant::now();
    let history = History::make(args.rows, Mixed::Adverse).await;
    println!("made {} rows in {:.0} s", args.rows, begin.elapsed().as_secs_f64());
    let server = Server::start_in(history.copy(), &["--max-running", "3"]);
    let mut connection = Connection::open(server.address()).await;
    // The newest tasks run, so that none of those is found between older times.
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

/// Reads the first pages of one list.
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

/// Looks at finished tasks at random, and notes the longest time that one took.
async fn look(address: String, tasks: u64, slowest: Rc<Cell<Duration>>) {
    let mut random = Random::new(0);
    let mut connection = Connection::open(&address).await;
    loop {
        let request = get(&format!("/tasks/{}", history::id(random.below(tasks))));
        let begin = Instant::now();
        let answer = connection.answer(&request).await;
        let time = begin.elapsed();
        // A refusal is as bad as an answer that does not come.
        let time = if answer.status == 200 { time } else { time.max(Duration::from_secs(1)) };
        slowest.set(slowest.get().max(time));
        sleep(PAUSE).await;
    }
}

/// What [`Mixed::Adverse`] deals out.
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

/// Every choice of two or three of so many.
fn sets(count: usize) -> Vec<Vec<usize>> {
    let chosen = |bits: usize| (0..count).filter(|index| bits >> index & 1 == 1).collect();
    let sets = (0..1 << count).map(chosen);
    let mut sets: Vec<Vec<usize>> =
        sets.filter(|set: &Vec<_>| matches!(set.len(), 2 | 3)).collect();
    sets.sort_by_key(Vec::len);
    sets
}

/// Every combination of the values.
fn queries(filters: &[&Filter]) -> Vec<String> {
    filters.iter().fold(vec![String::new()], |queries, (name, values)| {
        let with = |query: &String| -> Vec<String> {
            values.iter().map(|value| format!("{query}&{name}={value}")).collect()
        };
        let queries: Vec<_> = queries.iter().flat_map(with).collect();
        queries.into_iter().map(|query| query.trim_start_matches('&').to_owned()).collect()
    })
}
