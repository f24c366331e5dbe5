//! The writer by itself, with a store on a real file.

use std::collections::HashMap;
use std::sync::Mutex;

use futures_util::FutureExt;
use tempfile::TempDir;

use super::*;
use crate::store::change::Cancellation;
use crate::store::testing::{Started, end, new_task};
use crate::store::{Limits, NewTask, Opened, StoredProgress, TaskRecord, open};

fn end_of(record: &TaskRecord, epoch: i64) -> Arc<AttemptEnd> {
    Arc::new(AttemptEnd {
        status: TaskStatus::Completed,
        progress: 100.0,
        ..AttemptEnd::pending(record.seq, epoch, record.info.task_id)
    })
}

#[tokio::test]
async fn late_progress_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let mut started = Started::start(&folder).await;
    let record = started.claimed().await;
    for (epoch, percent, expected) in [(0, 10.0, 0.0), (1, 20.0, 20.0), (2, 30.0, 20.0)] {
        let message = "so far".to_owned();
        let updated_at = Timestamp::now();
        let progress = StoredProgress { seq: record.seq, epoch, percent, message, updated_at };
        started.store.progress(progress).await.unwrap();
        let stored = started.store.reads.get(record.info.task_id).await.unwrap().unwrap().info;
        assert_eq!(stored.progress, expected, "after progress of epoch {epoch}");
    }
    started.stop().await;
}

#[tokio::test]
async fn a_task_that_was_to_be_cancelled_is_cancelled_by_the_next_start() {
    let folder = TempDir::new().unwrap();
    let mut started = Started::start(&folder).await;
    let record = started.claimed().await;
    let id = record.info.task_id;
    let wish = Cancellation { id, at: Timestamp::now(), accepted_by_attempt: true };
    assert_eq!(started.store.cancel(wish).await.unwrap(), CancelEffect::Requested);
    // For the database this is what a crash is: nobody has ended the attempt.
    started.stop().await;

    let started = Started::start(&folder).await;
    let stored = started.store.reads.get(id).await.unwrap().unwrap().info;
    assert_eq!(stored.status, TaskStatus::Cancelled);
    started.stop().await;
}

#[tokio::test]
async fn what_an_interrupted_attempt_has_written_is_removed_by_the_next_start() {
    let folder = TempDir::new().unwrap();
    let mut started = Started::start(&folder).await;
    let task = NewTask { output_file_path: Some("out.txt".to_owned()), ..new_task() };
    let id = task.id;
    started.submit(task).await;
    assert!(matches!(started.heard.recv().await, Some(Committed::Claimed { .. })));
    started.stop().await;

    let removed = Mutex::new(Vec::new());
    let remove = |path: &str, id, epoch| removed.lock().unwrap().push((path.to_owned(), id, epoch));
    let limits = Limits::of(1, &[]);
    open(&folder.path().join("tasks.db"), limits, remove).await.unwrap();
    assert_eq!(removed.into_inner().unwrap(), [("out.txt".to_owned(), id, 1)]);
}

#[tokio::test]
async fn a_late_end_changes_nothing_and_is_told_so() {
    let folder = TempDir::new().unwrap();
    let mut started = Started::start(&folder).await;
    let mut records = Vec::new();
    for _ in 0..3 {
        records.push(started.claimed().await);
    }

    // As one batch, so that one statement meets all three.
    let epochs = [1, 0, 1];
    let ends = records
        .iter()
        .zip(epochs)
        .map(|(record, epoch)| end(&started.store, end_of(record, epoch)));
    futures_util::future::join_all(ends).await;
    let mut owned = HashMap::new();
    while owned.len() < 3 {
        match started.heard.recv().await {
            Some(Committed::Ended(end, _)) => owned.insert(end.seq, true),
            Some(Committed::Disowned(end)) => owned.insert(end.seq, false),
            _ => panic!("something else than the three ends was told"),
        };
    }
    for (record, epoch) in records.iter().zip(epochs) {
        let stored = started.store.reads.get(record.info.task_id).await.unwrap().unwrap().info;
        let expected = if epoch == 1 { TaskStatus::Completed } else { TaskStatus::Running };
        assert_eq!((stored.status, owned[&record.seq]), (expected, epoch == 1));
    }
    started.stop().await;
}

/// Asks for a change and looks, at its commit, whether it was answered already.
struct Suspicious(Mutex<Option<futures_util::future::BoxFuture<'static, ()>>>);

impl Observer for Suspicious {
    fn committed(&self, _: Commit) {
        if let Some(asked) = self.0.lock().unwrap().take() {
            assert!(asked.now_or_never().is_none(), "answered before the observer has seen it");
        }
    }
}

#[tokio::test]
async fn nobody_is_answered_before_the_observer_has_seen_the_commit() {
    let folder = TempDir::new().unwrap();
    let limits = Limits::of(1, &[("idle", 1)]);
    let path = folder.path().join("tasks.db");
    let Opened { store, writer, .. } = open(&path, limits, |_, _, _| {}).await.unwrap();
    let asking = store.clone();
    let mut asked = async move { asking.promote(Vec::new()).await.unwrap() }.boxed();
    assert!((&mut asked).now_or_never().is_none(), "nobody commits it yet");
    let observer = Arc::new(Suspicious(Mutex::new(Some(asked))));
    let writer = tokio::spawn(writer.run(Arc::clone(&observer) as Arc<dyn Observer>));
    store.close().await;
    writer.await.unwrap();
    assert!(observer.0.lock().unwrap().is_none(), "the observer has seen a commit");
}
