//! One database, the servers that die on it, and the promises they made.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use task_server::task::Timestamp;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::common::{Server, dummy};
use crate::crash::connection::Connection;
use crate::crash::follower::{Follower, LAST};
use crate::crash::ledger::{Ledger, is_final};
use crate::crash::outputs::{self, Outputs};
use crate::crash::plan::{CONNECTIONS, GRACE, Kind, Round};
use crate::crash::stored::{self, Death, Rows};
use crate::crash::{PATIENCE, Tally};

/// Few run slots, so that some tasks are always pending.
const ARGS: [&str; 6] = ["--max-running", "6", "--cpu-slots", "2", "--shutdown-grace", GRACE];
/// Short enough to erase tasks of earlier rounds.
const RETENTION: Duration = Duration::from_secs(1);
const RETENTION_ARGS: [&str; 2] = ["--retention", "1s"];

pub(crate) struct Database<'h> {
    runtime: &'h Runtime,
    outputs: &'h Outputs,
    tally: &'h mut Tally,
    args: Vec<&'static str>,
    erases: bool,
    round: usize,
    server: Server,
    ledger: Arc<Mutex<Ledger>>,
    connections: Vec<Connection>,
    follower: Option<Follower>,
    /// Rows left behind by the last server.
    stored: Rows,
}

impl<'h> Database<'h> {
    pub(crate) fn new(
        runtime: &'h Runtime,
        outputs: &'h Outputs,
        tally: &'h mut Tally,
        erases: bool,
    ) -> Self {
        let folder = TempDir::new().unwrap();
        outputs.write_inputs(folder.path());
        let args = if erases { [&ARGS[..], &RETENTION_ARGS].concat() } else { ARGS.to_vec() };
        let server = Server::start_in(folder, &args, &[]);
        let ledger = Arc::new(Mutex::new(Ledger::new(erases.then_some(RETENTION))));
        let connections = (0..CONNECTIONS).map(|number| Connection::new(number, &ledger)).collect();
        let follower = Some(Follower::new(&ledger));
        let stored = Rows::new();
        let round = 0;
        Self {
            runtime,
            outputs,
            tally,
            args,
            erases,
            round,
            server,
            ledger,
            connections,
            follower,
            stored,
        }
    }

    /// Runs one round: work, death, recovery, review.
    pub(crate) fn crash(&mut self, number: usize, round: Round) {
        self.round = number;
        let (sender, answers) = mpsc::channel();
        let clients =
            self.connections.drain(..).zip(round.connections).map(|(mut client, plan)| {
                client.begin_round(number, self.server.address());
                self.runtime.spawn(client.run(plan, sender.clone()))
            });
        let clients: Vec<_> = clients.collect();
        let follower = self.follower.take().unwrap();
        let address = self.server.address().to_owned();
        let follower = self.runtime.spawn(follower.run(address, round.hang_ups));
        let (count, pause) = round.kill;
        if !wait(&answers, count, pause) {
            self.violation("the server does not answer".to_owned());
        }
        self.stop(round.drain);
        let clients = self.runtime.block_on(join_all(clients));
        self.connections = clients.into_iter().map(Result::unwrap).collect();
        self.follower = Some(self.runtime.block_on(follower).unwrap());
        for after in round.boots {
            let listened = self.server.restart_and_kill(&self.args, after);
            self.ledger.lock().unwrap().kills += 1;
            self.tally.kills_during_boot += usize::from(!listened);
            self.inspect(if listened { Death::Killed } else { Death::KilledAtBoot });
        }
        self.restart_and_review();
        self.tally.rounds += 1;
    }

    /// Kills the server. If `drain` is given, sends SIGTERM and waits that long first.
    fn stop(&mut self, drain: Option<Duration>) {
        if let Some(drain) = drain {
            self.ledger.lock().unwrap().draining = true;
            self.server.terminate();
            std::thread::sleep(drain);
        }
        self.server.kill();
        let status = self.server.wait_exit();
        let orderly = status.code().is_some();
        if orderly && (drain.is_none() || !status.success()) {
            self.violation(format!("the server has ended with {status}, expected it to be killed"));
        }
        if !orderly {
            self.ledger.lock().unwrap().kills += 1;
        }
        self.tally.orderly_stops += usize::from(orderly);
        self.tally.kills_during_drain += usize::from(!orderly && drain.is_some());
        self.ledger.lock().unwrap().draining = false;
        self.inspect(if orderly { Death::Orderly } else { Death::Killed });
    }

    /// Checks the files and rows left behind by a dead server.
    fn inspect(&mut self, death: Death) {
        self.check_outputs();
        let rows = self.runtime.block_on(stored::read(self.server.folder()));
        let wrong = stored::wrong(&self.stored, &rows, death);
        wrong.into_iter().for_each(|it| self.violation(it));
        if death == Death::Orderly {
            self.check_for_parts();
        }
        self.stored = rows;
    }

    fn restart_and_review(&mut self) {
        let boot = Timestamp::now().to_string();
        self.server.restart(&self.args);
        for connection in &mut self.connections {
            self.runtime.block_on(connection.repeat_unanswered(self.server.address()));
        }
        let shown = self.runtime.block_on(all_tasks(&self.server));
        self.ledger.lock().unwrap().review(&shown, &boot);
    }

    /// True if no promise was broken so far. A broken one may make later steps hang.
    pub(crate) fn is_sound(&self) -> bool {
        self.ledger.lock().unwrap().violations.is_empty()
    }

    /// Waits until all tasks have ended, and reviews them again after one more crash.
    pub(crate) fn let_all_end(&mut self) {
        self.round += 1;
        let follower = self.follower.take().unwrap();
        let address = self.server.address().to_owned();
        let follower = self.runtime.spawn(follower.run(address.clone(), Vec::new()));
        self.runtime.block_on(drain(&self.server, &self.ledger));
        self.end_streams(follower);
        for connection in &mut self.connections {
            self.runtime.block_on(connection.follow_to_the_end(&address));
            self.runtime.block_on(connection.repeat_keyed(&address));
        }
        self.check_outputs();
        self.check_for_parts();
        self.stop(None);
        self.restart_and_review();
        self.ledger.lock().unwrap().review_batches();
        if self.erases {
            self.let_all_be_erased();
        }
    }

    /// Submits one more task: a reader that has seen its end has seen all earlier events.
    fn end_streams(&mut self, follower: tokio::task::JoinHandle<Follower>) {
        let mut last = dummy(0.0);
        last["tags"] = json!({ "mark": LAST });
        self.ledger.lock().unwrap().sent(LAST, Kind::Nothing, &last);
        let id = self.runtime.block_on(self.server.submit(last));
        self.ledger.lock().unwrap().accepted(LAST, LAST, &id);
        let read = async { tokio::time::timeout(PATIENCE, follower).await };
        let Ok(follower) = self.runtime.block_on(read) else {
            return self.violation(format!("no stream shows the end of {id}, the last task"));
        };
        let follower = follower.unwrap();
        for id in follower.unfinished() {
            let answer = self.runtime.block_on(self.server.get(&format!("/tasks/{id}")));
            match answer.status {
                404 => self.ledger.lock().unwrap().missing(&id),
                _ => self.violation(format!("no stream showed the end of {answer}")),
            }
        }
        self.tally.events += follower.events;
        self.tally.resumptions += follower.resumptions;
    }

    /// Waits until every task is erased. Their keys must still map to them.
    fn let_all_be_erased(&mut self) {
        let begin = Instant::now();
        loop {
            let left = self.runtime.block_on(all_tasks(&self.server));
            if left.is_empty() {
                break;
            }
            if begin.elapsed() > PATIENCE {
                let kept = left.len();
                let text = format!("{kept} tasks are kept, expected none after {RETENTION:?}");
                return self.violation(format!("{text}: {}", left[0]));
            }
            std::thread::sleep(RETENTION / 10);
        }
        let address = self.server.address().to_owned();
        for connection in &mut self.connections {
            self.runtime.block_on(connection.repeat_keyed(&address));
        }
        let shown = self.runtime.block_on(all_tasks(&self.server));
        self.ledger.lock().unwrap().review(&shown, "");
    }

    pub(crate) fn close(self) {
        let ledger = self.ledger.lock().unwrap();
        self.tally.tasks += ledger.len();
        self.tally.cancels += ledger.cancels;
        self.tally.kills += ledger.kills;
        self.tally.erased += ledger.erased();
        self.tally.timed_out += ledger.ends(|kind| matches!(kind, Kind::TimesOut { .. }), "failed");
        self.tally.scheduled += ledger.ends(|kind| matches!(kind, Kind::Later { .. }), "completed");
        self.tally.violations += ledger.violations.len();
        for violation in &ledger.violations {
            println!("VIOLATION in round {} of its database: {violation}", self.round);
        }
    }

    fn violation(&self, text: String) {
        self.ledger.lock().unwrap().violation(text);
    }

    /// Published files are complete at all times, even between a crash and the next start.
    fn check_outputs(&mut self) {
        let folder: &Path = self.server.folder();
        let (checked, wrong) = self.outputs.check(folder);
        self.tally.outputs += checked;
        self.ledger.lock().unwrap().violations.extend(wrong);
    }

    /// Without running tasks there must be no partial files.
    fn check_for_parts(&self) {
        let names = outputs::names(self.server.folder());
        for name in names.iter().filter(|name| name.ends_with(".part")) {
            self.violation(format!("left behind: {name}, expected no unfinished output"));
        }
    }
}

/// Waits for `count` responses and then for `pause`. Returns false if the responses do not come.
fn wait(answers: &Receiver<()>, count: usize, pause: Duration) -> bool {
    let came = (0..count).all(|_| answers.recv_timeout(PATIENCE).is_ok());
    let begin = Instant::now();
    // Responses during the pause are only drained.
    while answers.recv_timeout(pause.saturating_sub(begin.elapsed())).is_ok() {}
    came
}

/// All tasks the server lists, page by page.
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

/// Waits until every task has ended; cancels endless ones.
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
            let answer = server.get(&format!("/tasks/{id}?wait=30")).await;
            if answer.status == 404 {
                ledger.lock().unwrap().missing(id);
                break;
            }
            if is_final(&answer.body) {
                let mut ledger = ledger.lock().unwrap();
                let now = ledger.now();
                ledger.observe(&answer.body, now);
                break;
            }
            if begin.elapsed() > PATIENCE {
                let text = format!("never ends: {answer}, expected it to end by itself");
                return ledger.lock().unwrap().violation(text);
            }
        }
    }
}
