//! Point reads: their cost does not depend on the number of tasks.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Row;
use tokio::sync::{mpsc, oneshot};

use super::readers::Readers;
use super::record::columns;
use super::rows::OverRows;
use super::transitions::parse;
use super::{Answer, Store, StoreError, TaskRecord};
use crate::task::{TaskId, Timestamp};

impl Store {
    /// One task.
    pub(crate) async fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        let (answer, found) = oneshot::channel();
        self.lookups.send((id, answer)).map_err(|_| StoreError::Closed)?;
        let record = found.await.map_err(|_| StoreError::Closed)??;
        Ok(record.map(Arc::unwrap_or_clone))
    }

    /// Submission time of the oldest pending task.
    pub(crate) async fn oldest_pending(&self) -> Result<Option<Timestamp>, StoreError> {
        let oldest = "SELECT min((SELECT created_at FROM tasks \
                          WHERE task_type = name AND status = 'pending' ORDER BY seq LIMIT 1)) \
                      FROM task_types";
        let row = sqlx::query(oldest).fetch_one(self.readers.points()).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.map(Timestamp::from_micros))
    }
}

/// Request for a task, and where its record is waited for. All who ask for the same task at the same time
/// share a record, and not a row: SQLite may rewrite a value when it is read, so only one thread may read it.
pub(super) type Lookup = (TaskId, Answer<Option<Arc<TaskRecord>>>);

/// Records that were found, or why one cannot be read.
type Found = HashMap<TaskId, Result<Arc<TaskRecord>, StoreError>>;

/// Upper limit of the tasks that are looked up by one query.
const MAX_LOOKUPS: usize = 64;

pub(super) const LOOK_UP: OverRows = OverRows {
    columns: &["wanted"],
    sql: concat!("SELECT ", columns!(), " FROM new CROSS JOIN tasks ON tasks.id = new.wanted"),
};

/// Looks tasks up, all that are asked for meanwhile with one query: the way to a connection's thread
/// and back takes longer than finding a task. Ends when nobody can ask any more.
pub(super) async fn look_up(readers: Readers, mut lookups: mpsc::UnboundedReceiver<Lookup>) {
    let mut asked = Vec::with_capacity(MAX_LOOKUPS);
    while lookups.recv_many(&mut asked, MAX_LOOKUPS).await > 0 {
        let found = find(&readers, &asked).await;
        for (id, answer) in asked.drain(..) {
            // Someone who does not wait any more needs no answer.
            let _ = answer.send(match &found {
                Ok(found) => found.get(&id).cloned().transpose(),
                Err(error) => Err(error.clone()),
            });
        }
    }
}

async fn find(readers: &Readers, asked: &[Lookup]) -> Result<Found, StoreError> {
    let query = LOOK_UP.with(asked, |row, (id, _)| {
        row.bind(id.to_string());
    });
    let mut found = Found::with_capacity(asked.len());
    for row in &query.fetch_all(readers.points()).await? {
        let id = parse(row.try_get("id")?)?;
        // A task that several ask for has as many rows.
        found.entry(id).or_insert_with(|| Ok(Arc::new(TaskRecord::from_row(row)?)));
    }
    Ok(found)
}
