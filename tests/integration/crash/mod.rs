//! Kills the server at random moments, again and again, and holds it to what it had answered.
//!
//! Several connections submit, look, follow, cancel and retry, and one reader follows all tasks; a
//! ledger keeps every answer. After each SIGKILL, sometimes in the middle of an orderly stop, the
//! server starts on the same files, and everything that it shows must agree with the ledger: what was
//! accepted is there, once, unless its retention was over; what has ended never changes; what was to
//! be cancelled does not complete; nothing runs before its time or beyond its timeout; keys outlive
//! their tasks; published files are whole; only an unclean stop counts as an interruption.
//!
//! `CRASH_ROUNDS=300` makes it long, `CRASH_SEED=n` repeats a schedule: the same requests on each
//! connection and the kill after the same number of answers and microseconds. The timing of the
//! system's scheduler and disk cannot be repeated. Each database has a seed of its own, which a
//! violation names. `-- --nocapture` shows seed and counts.

mod connection;
mod database;
mod entry;
mod follower;
mod ledger;
mod outputs;
mod plan;
mod request;
mod stored;
mod stream;

use std::fmt;

use fastrand::Rng;
use tokio::runtime::Runtime;

use crate::common::PATIENCE;
use database::Database;
use outputs::Outputs;
use plan::Round;

/// How many crashes one database lives through.
const ROUNDS_PER_DATABASE: usize = 10;

#[test]
fn what_was_answered_stays_true_through_every_crash() {
    let rounds = number("CRASH_ROUNDS").unwrap_or(20) as usize;
    let seed = number("CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("CRASH_SEED={seed}");
    let runtime = Runtime::new().unwrap();
    let outputs = Outputs::prepare(&runtime);
    let mut tally = Tally::default();
    let mut seed = seed;
    while tally.rounds < rounds {
        let rounds = ROUNDS_PER_DATABASE.min(rounds - tally.rounds);
        let mut rng = Rng::with_seed(seed);
        // Every other database is kept for ever, so that final records can be compared for long.
        let mut database = Database::new(&runtime, &outputs, &mut tally, seed.is_multiple_of(2));
        for round in 0..rounds {
            if database.is_sound() {
                database.crash(round, Round::new(&mut rng));
            }
        }
        if database.is_sound() {
            database.let_all_end();
        }
        database.close();
        let violations = tally.violations;
        assert_eq!(
            violations, 0,
            "see above; CRASH_SEED={seed} CRASH_ROUNDS={rounds} repeats the schedule\n{tally}"
        );
        seed = seed.wrapping_add(1);
    }
    println!("{tally}");
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} should be a number, found `{text}`")))
}

/// What all rounds came to.
#[derive(Default)]
struct Tally {
    rounds: usize,
    tasks: usize,
    cancels: u64,
    kills: usize,
    kills_during_boot: usize,
    kills_during_drain: usize,
    orderly_stops: usize,
    outputs: usize,
    erased: usize,
    timed_out: usize,
    scheduled: usize,
    events: usize,
    resumptions: usize,
    violations: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, tasks, cancels, kills, kills_during_boot, kills_during_drain, .. } =
            self;
        let Self { orderly_stops, outputs, erased, timed_out, scheduled, .. } = self;
        let Self { events, resumptions, violations, .. } = self;
        write!(
            f,
            "crashes: {rounds} rounds, {tasks} tasks, {cancels} cancels, {kills} kills, \
             {kills_during_boot} kills during boot, {kills_during_drain} kills during a stop, \
             {orderly_stops} orderly stops, {outputs} outputs checked, {erased} tasks erased, \
             {timed_out} timed out, {scheduled} ran at their time, {events} events, \
             {resumptions} streams resumed, {violations} violations"
        )
    }
}
