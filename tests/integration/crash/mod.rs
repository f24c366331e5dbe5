//! Kills the server at random moments and checks that it keeps everything it had acknowledged.
//!
//! Several connections submit, read, follow, cancel and retry tasks, and one reader follows all
//! tasks. A ledger records every response. After each SIGKILL, sometimes in the middle of an
//! orderly stop, the server starts on the same files, and everything it shows must agree with the
//! ledger:
//! - Accepted tasks exist, exactly once, unless their retention is over.
//! - Final states never change.
//! - Cancelled tasks do not complete.
//! - No task runs before its time or beyond its timeout.
//! - Idempotency keys outlive their tasks.
//! - Published files are complete.
//! - Only an unclean stop counts as an interruption.
//!
//! `CRASH_ROUNDS=300` makes a long run. `CRASH_SEED=n` repeats a schedule: the same requests on
//! each connection, and the kill after the same number of responses and microseconds. Timing of the
//! scheduler and the disk cannot be repeated. Each database has its own seed, which a violation
//! names. `-- --nocapture` shows seed and counts.

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

/// Number of crashes per database.
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
        // Every other database has no retention, so that final records are compared over many
        // crashes.
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

/// Counts of all rounds.
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
