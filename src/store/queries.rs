//! Point reads: their cost does not depend on the number of tasks.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row};
use tokio::sync::{mpsc, oneshot};

use super::claims::push_ready;
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
        let row = found.await.map_err(|_| StoreError::Closed)??;
        Ok(row.as_deref().map(TaskRecord::from_row).transpose()?)
    }

    /// Submission time of the oldest pending task.
    pub(crate) async fn oldest_pending(&self) -> Result<Option<Timestamp>, StoreError> {
        let oldest = "SELECT min((SELECT created_at FROM tasks \
                          WHERE task_type = name AND status = 'pending' ORDER BY seq LIMIT 1)) \
                      FROM task_types";
        let row = sqlx::query(oldest).fetch_one(self.readers.points()).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.map(Timestamp::from_micros))
    }

    /// The ready tasks that are to run next, in order, `limit` at the most.
    pub(crate) async fn queue(
        &self,
        types: &[&'static str],
        limit: usize,
    ) -> Result<Vec<i64>, StoreError> {
        let by_type: Vec<_> = types.iter().map(|&name| (name, limit)).collect();
        let mut query = QueryBuilder::new("SELECT json_group_array(seq) FROM (");
        push_ready(&mut query, &by_type, limit);
        let row = query.push(")").build().fetch_one(self.readers.points()).await?;
        let seqs: &str = row.try_get(0)?;
        serde_json::from_str(seqs)
            .map_err(|error| StoreError::from(sqlx::Error::Decode(Box::new(error))))
    }
}

/// Request for a task, and where its row is waited for.
pub(super) type Lookup = (TaskId, Answer<Option<Arc<SqliteRow>>>);

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
                Ok(found) => Ok(found.get(&id).cloned()),
                Err(error) => Err(error.clone()),
            });
        }
    }
}

async fn find(
    readers: &Readers,
    asked: &[Lookup],
) -> Result<HashMap<TaskId, Arc<SqliteRow>>, StoreError> {
    let query = LOOK_UP.with(asked, |row, (id, _)| {
        row.bind(id.to_string());
    });
    let rows = query.fetch_all(readers.points()).await?;
    let by_id = |row: SqliteRow| Ok((parse(row.try_get("id")?)?, Arc::new(row)));
    Ok(rows.into_iter().map(by_id).collect::<sqlx::Result<_>>()?)
}
