//! What can be seen of the tasks, and that it is as the model says.

use std::collections::BTreeMap;

use super::model::{Model, Task};
use super::moves::{Start, TYPES};
use crate::store::{ListFilter, Store, TaskRecord};
use crate::task::{TaskId, TaskStatus, TaskType};

/// The ids of all tasks that were ever stored, by `seq`.
pub(super) type Ids = BTreeMap<i64, TaskId>;

/// Compares what the store holds with what the model says.
pub(super) async fn compare(store: &Store, ids: &Ids, model: &Model) {
    let all = ListFilter { limit: 1000, ..ListFilter::default() };
    let records = store.reads.list(&all).await.unwrap().records;
    let seen: Vec<_> = records.iter().map(|record| Seen::of_record(record, ids)).collect();
    let expected: Vec<_> =
        model.tasks.iter().rev().map(|(&seq, task)| Seen::of_model(seq, task)).collect();
    for (seen, expected) in seen.iter().zip(&expected) {
        assert_eq!(seen, expected);
    }
    assert_eq!(seen.len(), expected.len(), "{seen:#?}\n{expected:#?}");

    // One of each kind of look, in turns.
    let turn = model.moves;
    let (status, kind, tag) = (TaskStatus::ALL[turn % 5], turn % TYPES.len(), (turn % 2) as u8);
    let by_status = ListFilter { statuses: vec![status], ..all.clone() };
    let by_type = ListFilter {
        task_types: TaskType::builtin_named(TYPES[kind]).into_iter().collect(),
        ..all.clone()
    };
    let by_tag = ListFilter { tags: vec![("tag".to_owned(), tag.to_string())], ..all };
    for (filter, expected) in [
        (by_status, model.list(|task| task.status == status)),
        (by_type, model.list(|task| task.new.kind == kind)),
        (by_tag, model.list(|task| task.new.tag == Some(tag))),
    ] {
        let listed = store.reads.list(&filter).await.unwrap().records;
        let listed: Vec<_> = listed.iter().map(|record| record.seq).collect();
        assert_eq!(listed, expected, "{filter:?}");
    }
    if let Some((seq, &id)) = ids.iter().nth(turn % ids.len().max(1)) {
        let found = store.reads.get(id).await.unwrap().map(|record| record.seq);
        assert_eq!(found, model.tasks.contains_key(seq).then_some(*seq));
    }
    let positions = model.queue().into_iter().zip(1..).collect();
    assert_eq!(*store.reads.positions().await.unwrap(), positions);
    let newest = store.reads.newest_pending().await.unwrap().map(|record| record.seq);
    assert_eq!(newest, model.list(|task| task.status == TaskStatus::Pending).first().copied());

    for &status in TaskStatus::ALL {
        let expected = model.list(|task| task.status == status).len();
        assert_eq!(store.reads.counts().get(status), expected as u64, "{status:?} tasks");
    }

    let key = (turn % 4) as u8;
    let replay = store.reads.replay(&key.to_string()).await.unwrap();
    let replay = replay.map(|replay| (seq_of(ids, replay.task_id), replay.body_hash));
    let expected = model.keys.get(&key).map(|key| (key.seq, key.body.to_string()));
    assert_eq!(replay, expected, "key {key}");
    let tagged = model.list(|task| task.new.tag.is_some()).len();
    let counts = (store.reads.rows("task_tags").await, store.reads.rows("idempotency_keys").await);
    assert_eq!(counts, (tagged, model.keys.len()), "tags and keys that are left");
}

pub(super) fn seq_of(ids: &Ids, id: TaskId) -> i64 {
    ids.iter().find(|(_, known)| **known == id).map_or(0, |(&seq, _)| seq)
}

/// One task.
#[derive(Debug, PartialEq)]
struct Seen {
    seq: i64,
    task_type: &'static str,
    status: TaskStatus,
    epoch: i64,
    attempt: u32,
    interruptions: i64,
    priority: i32,
    progress: f64,
    message: String,
    due: bool,
    scheduled: bool,
    held: bool,
    has_result: bool,
    has_error: bool,
    cancel_requested: bool,
    started: bool,
    ended: bool,
    output: Option<String>,
    tags: String,
    retry_of: Option<i64>,
    retried_by: Option<i64>,
}

impl Seen {
    fn of_record(record: &TaskRecord, ids: &Ids) -> Self {
        let info = &record.info;
        assert_eq!(ids.get(&record.seq), Some(&info.task_id), "the id of task {}", record.seq);
        Self {
            seq: record.seq,
            task_type: TYPES.into_iter().find(|name| *name == info.task_type).unwrap_or("other"),
            status: info.status,
            epoch: record.epoch,
            attempt: info.attempt,
            interruptions: record.interruptions,
            priority: info.priority,
            progress: info.progress,
            message: info.message.clone(),
            due: record.due_at.is_some(),
            scheduled: info.run_at.is_some(),
            held: record.unrunnable,
            has_result: info.result.is_some(),
            has_error: info.error.is_some(),
            cancel_requested: info.cancel_requested_at.is_some(),
            started: info.started_at.is_some(),
            ended: info.completed_at.is_some(),
            output: info.output_file_path.clone(),
            tags: info.tags.get().to_owned(),
            retry_of: info.retry_of.map(|of| seq_of(ids, of)),
            retried_by: info.retried_by.map(|by| seq_of(ids, by)),
        }
    }

    fn of_model(seq: i64, task: &Task) -> Self {
        let new = &task.new;
        Self {
            seq,
            task_type: TYPES[new.kind],
            status: task.status,
            epoch: task.epoch,
            attempt: task.attempt,
            interruptions: task.interruptions,
            priority: new.priority,
            progress: task.progress,
            message: task.message.clone(),
            due: task.due,
            scheduled: new.start != Start::AtOnce,
            held: task.held,
            has_result: task.has_result,
            has_error: task.has_error,
            cancel_requested: task.cancel_requested,
            started: task.epoch > 0,
            ended: task.ended.is_some(),
            output: new.output.map(|output| output.to_string()),
            tags: new.tag.map_or("{}".to_owned(), |tag| format!("{{\"tag\":\"{tag}\"}}")),
            retry_of: new.retry.map(|(of, _)| of),
            retried_by: task.retried_by,
        }
    }
}
