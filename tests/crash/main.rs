//! Kills the server at random moments, again and again, and holds it to what it had answered.
//!
//! Several connections submit, look, cancel and retry; a ledger keeps every answer. After each
//! SIGKILL the server starts on the same files, and everything that it shows must agree with the
//! ledger: what was accepted is there, once; what has ended never changes; what was to be cancelled
//! does not complete; published files are whole.
//!
//! `CRASH_ROUNDS=1000` makes it long, `CRASH_SEED=n` repeats a schedule: the same requests on each
//! connection and the kill after the same number of answers and microseconds. How the system's
//! scheduler and disk fall in with that cannot be repeated. `-- --nocapture` shows seed and counts.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, their helpers too")]

#[path = "../common/mod.rs"]
mod common;
mod connection;
mod ledger;
mod outputs;
mod plan;

use std::fmt;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::future::join_all;
use serde_json::Value;
use task_server::task::Timestamp;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use common::Server;
use connection::Connection;
use ledger::Ledger;
use outputs::Outputs;
use plan::{CONNECTIONS, Kind, Round};

/// Few places, so that there are always pending tasks as well.
const ARGS: [&str; 4] = ["--max-running", "6", "--cpu-slots", "2"];
/// How many crashes one database lives through.
const ROUNDS_PER_DATABASE: usize = 10;
/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(100);

#[test]
fn what_was_answered_stays_true_through_every_crash() {
    let rounds = number("CRASH_ROUNDS").unwrap_or(20) as usize;
    let seed = number("CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("CRASH_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let runtime = Runtime::new().unwrap();
    let outputs = Outputs::prepare(&runtime);
    let mut tally = Tally::default();
    while tally.rounds < rounds && tally.violations == 0 {
        let rounds = ROUNDS_PER_DATABASE.min(rounds - tally.rounds);
        let mut database = Database::new(&runtime, &outputs, &mut tally);
        for round in 0..rounds {
            if database.is_sound() {
                database.crash(round, Round::new(&mut rng));
            }
        }
        if database.is_sound() {
            database.let_all_end();
        }
        database.close();
    }
    println!("{tally}");
    assert_eq!(tally.violations, 0, "see above; CRASH_SEED={seed} repeats the schedule");
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
    outputs: usize,
    violations: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, tasks, cancels, kills, kills_during_boot, outputs, violations } = self;
        write!(
            f,
            "crashes: {rounds} rounds, {tasks} tasks, {cancels} cancels, {kills} kills, \
             {kills_during_boot} kills during boot, {outputs} outputs checked, \
             {violations} violations"
        )
    }
}

/// One database, the servers that die on it, and what they have promised.
struct Database<'h> {
    runtime: &'h Runtime,
    outputs: &'h Outputs,
    tally: &'h mut Tally,
    server: Server,
    ledger: Arc<Mutex<Ledger>>,
    connections: Vec<Connection>,
}

impl<'h> Database<'h> {
    fn new(runtime: &'h Runtime, outputs: &'h Outputs, tally: &'h mut Tally) -> Self {
        let folder = TempDir::new().unwrap();
        outputs.write_inputs(folder.path());
        let server = Server::start_in(folder, &ARGS, &[]);
        let ledger = Arc::default();
        let connections = (0..CONNECTIONS).map(|number| Connection::new(number, &ledger)).collect();
        Self { runtime, outputs, tally, server, ledger, connections }
    }

    /// One round: work, death, recovery, review.
    fn crash(&mut self, number: usize, round: Round) {
        let (sender, answers) = mpsc::channel();
        let clients =
            self.connections.drain(..).zip(round.connections).map(|(mut client, plan)| {
                client.begin_round(number, self.server.address());
                self.runtime.spawn(client.run(plan, sender.clone()))
            });
        let clients: Vec<_> = clients.collect();
        let (count, pause) = round.kill;
        if !wait(&answers, count, pause) {
            self.ledger.lock().unwrap().violation("the server does not answer".to_owned());
        }
        self.server.kill();
        self.ledger.lock().unwrap().kills += 1;
        let clients = self.runtime.block_on(join_all(clients));
        self.connections = clients.into_iter().map(Result::unwrap).collect();
        self.check_outputs();
        for after in round.boots {
            let listened = self.server.restart_and_kill(&ARGS, after);
            self.ledger.lock().unwrap().kills += 1;
            self.tally.kills_during_boot += usize::from(!listened);
            self.check_outputs();
        }
        self.restart_and_review();
        self.tally.rounds += 1;
    }

    fn restart_and_review(&mut self) {
        let boot = Timestamp::now().to_string();
        self.server.restart(&ARGS);
        for connection in &mut self.connections {
            self.runtime.block_on(connection.repeat_unanswered(self.server.address()));
        }
        let shown = self.runtime.block_on(all_tasks(&self.server));
        self.ledger.lock().unwrap().review(&shown, &boot);
    }

    /// Whether no promise was broken so far. One that was may well make others hang.
    fn is_sound(&self) -> bool {
        self.ledger.lock().unwrap().violations.is_empty()
    }

    /// Waits until nothing runs any more, and looks again after one more crash.
    fn let_all_end(&mut self) {
        self.runtime.block_on(drain(&self.server, &self.ledger));
        self.check_outputs();
        let names = outputs::names(self.server.folder());
        let mut ledger = self.ledger.lock().unwrap();
        for name in names.iter().filter(|name| name.ends_with(".part")) {
            ledger.violation(format!("left behind: {name}"));
        }
        ledger.kills += 1;
        drop(ledger);
        self.restart_and_review();
        self.ledger.lock().unwrap().review_batches();
    }

    fn close(self) {
        let ledger = self.ledger.lock().unwrap();
        self.tally.tasks += ledger.len();
        self.tally.cancels += ledger.cancels;
        self.tally.kills += ledger.kills;
        self.tally.violations += ledger.violations.len();
        for violation in &ledger.violations {
            println!("VIOLATION: {violation}");
        }
    }

    /// A reader never sees half a file, not even between a crash and the next start.
    fn check_outputs(&mut self) {
        let folder: &Path = self.server.folder();
        let (checked, wrong) = self.outputs.check(folder);
        self.tally.outputs += checked;
        self.ledger.lock().unwrap().violations.extend(wrong);
    }
}

/// Returns that long after that many answers. False if they do not come.
fn wait(answers: &Receiver<()>, count: usize, pause: Duration) -> bool {
    let came = (0..count).all(|_| answers.recv_timeout(PATIENCE).is_ok());
    let begin = Instant::now();
    // Answers that come meanwhile are only taken out of the way.
    while answers.recv_timeout(pause.saturating_sub(begin.elapsed())).is_ok() {}
    came
}

/// Every task that the server shows, page by page.
async fn all_tasks(server: &Server) -> Vec<Value> {
    let mut tasks = Vec::new();
    let mut page = Some("/tasks?limit=100".to_owned());
    while let Some(path) = page {
        let answer = server.get(&path).await;
        assert_eq!(answer.status, 200, "{answer}");
        tasks.extend_from_slice(answer.body.as_array().unwrap());
        page = answer.next_page().map(str::to_owned);
    }
    tasks
}

/// Waits until every task has ended; those that never would are cancelled.
async fn drain(server: &Server, ledger: &Mutex<Ledger>) {
    let open = ledger.lock().unwrap().open();
    let is_endless = |id: &&String| ledger.lock().unwrap().kind(id) == Kind::Endless;
    for id in open.iter().filter(is_endless) {
        ledger.lock().unwrap().cancel_sent(id);
        let answer = server.delete(&format!("/tasks/{id}")).await;
        ledger.lock().unwrap().cancel_answered(id, answer.status, &answer.body);
    }
    let begin = Instant::now();
    for id in &open {
        loop {
            let task = server.get(&format!("/tasks/{id}?wait=30")).await.body;
            if task["completed_at"].is_string() {
                ledger.lock().unwrap().observe(&task);
                break;
            }
            if begin.elapsed() > PATIENCE {
                return ledger.lock().unwrap().violation(format!("never ends: {task}"));
            }
        }
    }
}
