//! Makes the moves with a real store on a real file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::value::to_raw_value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use super::model::Model;
use super::moves::{Change, End, LIMITS, Move, NewTask, OUTPUTS, Start, TYPES};
use super::seen::{self, Ids, seq_of};
use super::told::{Answer, News, Told};
use crate::store::change::{self, EraseStep, Submitted};
use crate::store::testing::{self, Ear, Idle};
use crate::store::{
    AttemptEnd, Cancellation, Committed, Idempotency, Limits, ListFilter, Opened, Refused, Store,
    StoredProgress, TaskRecord, open,
};
use crate::task::{TaskId, TaskStatus, Timestamp};

/// How long to wait for what should have been told by then: many short naps, so that a pause of the
/// whole process counts for one.
const NAP: Duration = Duration::from_millis(100);
const NAPS: usize = 100;

pub(super) struct Driver {
    server: Server,
    folder: TempDir,
    ids: Ids,
    /// When each move began.
    moments: Vec<Timestamp>,
}

impl Driver {
    pub(super) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let server = Server::open(folder.path(), &Ids::new(), &Told::default());
        Self { server, folder, ids: Ids::new(), moments: Vec::new() }
    }

    /// Makes a move that the model has made already.
    pub(super) fn make(mut self, next: &Move, model: &Model) -> Self {
        self.moments.push(Timestamp::now());
        match next {
            Move::Changes(changes) => self.change(changes, model),
            Move::Crash(changes) => {
                self.change(changes, model);
                // What lies on the disk in this moment is all that is left.
                let left = TempDir::new().unwrap();
                for name in ["tasks.db", "tasks.db-wal"] {
                    std::fs::copy(self.folder.path().join(name), left.path().join(name)).unwrap();
                }
                self.server = Server::open(left.path(), &self.ids, &model.told);
                self.folder = left;
            }
            Move::Stop => {
                self.server.stop(&self.ids, model);
                self.server = Server::open(self.folder.path(), &self.ids, &model.told);
            }
        }
        self
    }

    fn change(&mut self, changes: &[Change], model: &Model) {
        let store = &self.server.store;
        let mut sent = Vec::new();
        for change in changes {
            let erasure = self.server.runtime.block_on(erasure(store, change, &self.moments));
            sent.push(send(store, change, erasure, &self.ids));
        }
        // All are sent before the writer has its turn, so that they wait for it together.
        let sent = self.server.runtime.block_on(join_all(sent));
        let mut answers = Vec::new();
        for sent in sent {
            answers.push(match sent {
                Sent::Task(id, Ok(())) => {
                    let stored = self.server.store.reads.get(id);
                    let seq = self.server.runtime.block_on(stored).unwrap().unwrap().seq;
                    self.ids.insert(seq, id);
                    Answer::Stored(seq)
                }
                Sent::Task(_, Err(Refused::RetriedBefore)) => Answer::RetriedBefore,
                Sent::Task(_, Err(Refused::OutputInUse(id))) => {
                    Answer::OutputInUse(seq_of(&self.ids, id))
                }
                Sent::Task(_, Err(Refused::OutputOverlaps(_))) => Answer::OutputOverlaps,
                Sent::Task(_, Err(Refused::Replayed(replay))) => {
                    let body = replay.body_hash.parse().unwrap();
                    Answer::Replayed(seq_of(&self.ids, replay.task_id), body)
                }
                Sent::Other(answer) => answer,
            });
        }
        assert_eq!(answers, model.told.answers);
        self.server.hear(&self.ids, &model.told.news);
    }

    pub(super) fn compare(&self, model: &Model) {
        let Self { server, ids, .. } = self;
        server.runtime.block_on(seen::compare(&server.store, ids, model));
    }
}

/// A store at work. To drop it is to kill it.
struct Server {
    store: Store,
    writer: JoinHandle<()>,
    heard: UnboundedReceiver<Committed>,
    runtime: Runtime,
}

impl Server {
    fn open(folder: &Path, ids: &Ids, told: &Told) -> Self {
        let expected = &told.restart;
        // One thread, so that whatever waits for the writer waits for it in a known order.
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (total, by_type) = LIMITS;
        let by_type: Vec<_> = TYPES.into_iter().zip(by_type).collect();
        let partials = Mutex::new(Vec::new());
        let remove_partial = |path: &str, id, epoch| {
            partials.lock().unwrap().push((path.to_owned(), seq_of(ids, id), epoch));
        };
        let path = folder.join("tasks.db");
        let opened = open(&path, Limits::of(total, &by_type), remove_partial);
        let Opened { store, writer, due, .. } = runtime.block_on(opened).unwrap();
        let mut due: Vec<_> = due.into_iter().map(|due| due.seq).collect();
        due.sort();
        let mut partials = partials.into_inner().unwrap();
        partials.sort_by_key(|&(_, seq, _)| seq);
        let expected_partials = expected.partials.iter();
        let expected_partials: Vec<_> = expected_partials
            .map(|(output, seq, epoch)| (output.to_string(), *seq, *epoch))
            .collect();
        assert_eq!(due, expected.due);
        assert_eq!(partials, expected_partials);

        let (sender, heard) = unbounded_channel();
        let writer = runtime.spawn(writer.run(Arc::new(Ear(sender))));
        let mut server = Self { store, writer, heard, runtime };
        server.hear(ids, &expected.news);
        // The first look for ready tasks tells nothing if there are none.
        server.settle();
        server
    }

    /// As the manager does it.
    fn stop(&mut self, ids: &Ids, model: &Model) {
        self.runtime.block_on(self.store.stop_claiming());
        let ends = model.told.stopped.iter().map(|&(seq, epoch, end)| {
            let end = attempt_end(id_of(ids, seq), seq, epoch, end);
            testing::end(&self.store, Arc::new(end))
        });
        self.runtime.block_on(join_all(ends));
        self.hear(ids, &model.told.news);
        self.runtime.block_on(self.store.close());
        self.runtime.block_on(&mut self.writer).unwrap();
    }

    /// Waits for as much news as is expected, and compares.
    fn hear(&mut self, ids: &Ids, expected: &[News]) {
        let mut news = Vec::new();
        let mut naps = 0;
        while news.len() < expected.len() && naps < NAPS {
            let next = async { tokio::time::timeout(NAP, self.heard.recv()).await };
            match self.runtime.block_on(next) {
                Ok(next) => news.extend(news_of(next.expect("the writer ended"), ids)),
                Err(_) => naps += 1,
            }
        }
        news.extend(
            std::iter::from_fn(|| self.heard.try_recv().ok()).filter_map(|it| news_of(it, ids)),
        );
        news.sort();
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(news, expected);
    }

    /// Waits until the writer has looked for ready tasks without being asked.
    fn settle(&self) {
        let nothing = EraseStep { tasks: Vec::new(), keys_cutoff: Timestamp::from_micros(0) };
        self.runtime.block_on(erase(&self.store, nothing));
    }
}

/// What came of a change.
enum Sent {
    Task(TaskId, Submitted),
    Other(Answer),
}

/// What a change erases, looked up before the move.
async fn erasure(store: &Store, change: &Change, moments: &[Timestamp]) -> Option<EraseStep> {
    let moment = |number: usize| moments[number.min(moments.len() - 1)];
    let &Change::Erase { before, keys_before } = change else { return None };
    let all = ListFilter { limit: 1000, ..ListFilter::default() };
    let tasks = match before.map(moment) {
        Some(before) => {
            let old = |record: &TaskRecord| record.info.completed_at.is_some_and(|at| at < before);
            let records = store.reads.list(&all).await.unwrap().records;
            records.into_iter().filter(old).map(|record| record.seq).collect()
        }
        None => Vec::new(),
    };
    Some(EraseStep { tasks, keys_cutoff: moment(keys_before) })
}

async fn send(store: &Store, change: &Change, erasure: Option<EraseStep>, ids: &Ids) -> Sent {
    Sent::Other(match *change {
        Change::Submit(ref new) => {
            let task = new_task(new, ids);
            let id = task.id;
            return Sent::Task(
                id,
                store.queue_permit().await.unwrap().submit(Box::new(task)).await.unwrap(),
            );
        }
        Change::Progress { seq, epoch, percent } => {
            let (percent, message) = (f64::from(percent), format!("at {percent}"));
            let updated_at = Timestamp::now();
            let progress = StoredProgress { seq, epoch, percent, message, updated_at };
            store.progress(progress).await.unwrap();
            Answer::Done
        }
        Change::End { seq, epoch, end } => {
            let end = attempt_end(id_of(ids, seq), seq, epoch, end);
            testing::end(store, Arc::new(end)).await.unwrap();
            Answer::Done
        }
        Change::Promote(ref seqs) => {
            store.promote(seqs.clone()).await.unwrap();
            Answer::Done
        }
        Change::Cancel { seq, accepted } => {
            let (id, at) = (id_of(ids, seq), Timestamp::now());
            let asked = Cancellation { id, at, accepted_by_attempt: accepted };
            Answer::Cancel(store.cancel(asked).await.unwrap())
        }
        Change::Erase { .. } => {
            let more = erase(store, erasure.unwrap()).await;
            assert!(!more, "there are too few keys for a second step");
            Answer::Done
        }
    })
}

async fn erase(store: &Store, step: EraseStep) -> bool {
    store.queue.change(|answer| change::Change::Erase(step, answer)).await.unwrap()
}

/// An id that nobody has for a task that never was.
fn id_of(ids: &Ids, seq: i64) -> TaskId {
    ids.get(&seq).copied().unwrap_or_default()
}

/// So far away that nothing becomes ready by itself.
fn later() -> Timestamp {
    Timestamp::from_micros(4_000_000_000_000_000)
}

fn new_task(new: &NewTask, ids: &Ids) -> crate::store::NewTask {
    let tags = new.tag.map(|tag| ("tag".to_owned(), tag.to_string()));
    crate::store::NewTask {
        id: TaskId::new(),
        task_type: TYPES[new.kind],
        parameters: to_raw_value(&()).unwrap(),
        input_file_path: None,
        output_file_path: new.output.map(|output| output.to_string()),
        output_key: new.output.map(|output| OUTPUTS[usize::from(output)].to_owned()),
        priority: new.priority,
        timeout_seconds: None,
        max_attempts: 1,
        tags: to_raw_value(&HashMap::<_, _>::from_iter(tags)).unwrap(),
        run_at: (new.start != Start::AtOnce).then(later),
        retry: new.retry.and_then(|(seq, only_first)| {
            Some(crate::store::Retry { of: ids.get(&seq).copied()?, only_first })
        }),
        idempotency: new
            .key
            .map(|(key, body)| Idempotency { key: key.to_string(), body_hash: body.to_string() }),
        created_at: Timestamp::now(),
        code: Box::new(Idle),
        reservation: None,
    }
}

fn attempt_end(id: TaskId, seq: i64, epoch: i64, end: End) -> AttemptEnd {
    AttemptEnd {
        status: end.status(),
        progress: end.progress(),
        message: end.message().to_owned(),
        result: (end == End::Completed).then(|| to_raw_value("done").unwrap()),
        error: end.has_error().then(|| "no luck".to_owned()),
        pause: (end == End::Retry).then_some(Duration::from_secs(1_000_000_000)),
        attempt_given_back: end.gives_back(),
        unrunnable: end == End::SetAside,
        cancel_requested_at: (end == End::Cancelled).then(Timestamp::now),
        ..AttemptEnd::pending(seq, epoch, id)
    }
}

fn news_of(committed: Committed, ids: &Ids) -> Option<News> {
    Some(match committed {
        // A ready one may run in the same commit or in the next.
        Committed::Stored(record) => {
            return record.due_at.map(|_| News::Scheduled(record.seq));
        }
        Committed::Claimed { record, .. } => News::Claimed(record.seq, record.epoch),
        Committed::Cancelled { id, seq, record } => {
            let readable = record.map(|record| (record.seq, record.info.status));
            assert_eq!(readable, Some((seq, TaskStatus::Cancelled)));
            assert_eq!(id, id_of(ids, seq));
            News::Cancelled(seq)
        }
        Committed::Ended(end, _) => News::Ended(end.seq),
        Committed::Disowned(end) => News::Disowned(end.seq),
    })
}
