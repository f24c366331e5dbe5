//! Reads: they have connections of their own and never wait for the writer.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use super::claims::push_ready;
use super::record::columns;
use super::rows::OverRows;
use super::transitions::parse;
use super::{Answer, Store, StoreError, TaskRecord};
use crate::task::{TaskId, TaskInfo, TaskStatus, TaskType, Timestamp};

/// Which tasks a list shows. Empty lists of statuses and types mean all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListFilter {
    pub(crate) statuses: Vec<TaskStatus>,
    pub(crate) task_types: Vec<TaskType>,
    /// Submitted at this time or later.
    pub(crate) created_after: Option<Timestamp>,
    /// Submitted before this time.
    pub(crate) created_before: Option<Timestamp>,
    /// Tasks that have all of these tags.
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) limit: usize,
}

/// The last task of a page: the next page begins behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    seq: i64,
    created_at: Timestamp,
}

impl Cursor {
    pub(crate) fn behind(record: &TaskRecord) -> Self {
        Self { seq: record.seq, created_at: record.info.created_at }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.created_at.as_micros(), self.seq)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (created_at, seq) = text.rsplit_once('-').ok_or(())?;
        let created_at = created_at.parse().map_err(|_| ())?;
        let seq = seq.parse().map_err(|_| ())?;
        Ok(Self { seq, created_at: Timestamp::from_micros(created_at) })
    }
}

impl ListFilter {
    /// Whether a task with this status belongs into the list, on whatever page, if it has the tags.
    pub(crate) fn matches(&self, info: &TaskInfo, status: TaskStatus) -> bool {
        let of_type = |name: &TaskType| name.name() == info.task_type;
        (self.statuses.is_empty() || self.statuses.contains(&status))
            && (self.task_types.is_empty() || self.task_types.iter().any(of_type))
            && self.created_after.is_none_or(|after| info.created_at >= after)
            && self.created_before.is_none_or(|before| info.created_at < before)
    }

    /// Whether the list is walked by time of submission. That is the order of `seq` too unless the
    /// clock was set back, but only its index finds a range of times without reading the rest.
    fn by_time(&self) -> bool {
        (self.created_after.is_some() || self.created_before.is_some()) && self.tags.is_empty()
    }

    /// Whether statuses or types lead to the tasks, rather than being checked on the way.
    fn by_status_and_type(&self) -> bool {
        !(self.statuses.is_empty() && self.task_types.is_empty())
            && self.tags.is_empty()
            && !self.by_time()
    }
}

impl Store {
    /// One task.
    pub(crate) async fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        let (answer, found) = oneshot::channel();
        self.lookups.send((id, answer)).map_err(|_| StoreError::Closed)?;
        let row = found.await.map_err(|_| StoreError::Closed)??;
        Ok(row.as_deref().map(TaskRecord::from_row).transpose()?)
    }

    /// The pending task that was submitted last.
    pub(crate) async fn newest_pending(&self) -> Result<Option<TaskRecord>, StoreError> {
        let newest =
            ListFilter { statuses: vec![TaskStatus::Pending], limit: 1, ..ListFilter::default() };
        Ok(self.list(&newest).await?.pop())
    }

    /// When the task was submitted that has been pending for longest.
    pub(crate) async fn oldest_pending(&self) -> Result<Option<Timestamp>, StoreError> {
        let oldest = "SELECT min((SELECT created_at FROM tasks \
                          WHERE task_type = name AND status = 'pending' ORDER BY seq LIMIT 1)) \
                      FROM task_types";
        let row = sqlx::query(oldest).fetch_one(&self.readers).await?;
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
        let row = query.push(")").build().fetch_one(&self.readers).await?;
        let seqs: &str = row.try_get(0)?;
        serde_json::from_str(seqs)
            .map_err(|error| StoreError::from(sqlx::Error::Decode(Box::new(error))))
    }

    /// Tasks, newest first. One index walk for each combination of a type and a status, merged, so
    /// that the time does not depend on how many tasks there are; with tags or times one walk along
    /// those, which passes over what has another status or type.
    pub(crate) async fn list(&self, filter: &ListFilter) -> Result<Vec<TaskRecord>, StoreError> {
        let mut query = self::list(filter);
        let rows = query.build().fetch_all(&self.readers).await?;
        Ok(rows.iter().map(TaskRecord::from_row).collect::<Result<_, _>>()?)
    }
}

/// Someone who asks for a task.
pub(super) type Lookup = (TaskId, Answer<Option<Arc<SqliteRow>>>);

/// Upper limit of the tasks that are looked up by one query.
const MAX_LOOKUPS: usize = 64;

pub(super) const LOOK_UP: OverRows = OverRows {
    columns: &["wanted"],
    sql: concat!("SELECT ", columns!(), " FROM new CROSS JOIN tasks ON tasks.id = new.wanted"),
};

/// Looks tasks up, all that are asked for meanwhile with one query: the way to a connection's thread
/// and back takes longer than finding a task. Ends when nobody can ask any more.
pub(super) async fn look_up(readers: SqlitePool, mut lookups: mpsc::UnboundedReceiver<Lookup>) {
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
    readers: &SqlitePool,
    asked: &[Lookup],
) -> Result<HashMap<TaskId, Arc<SqliteRow>>, StoreError> {
    let query = LOOK_UP.with(asked, |row, (id, _)| {
        row.bind(id.to_string());
    });
    let rows = query.fetch_all(readers).await?;
    let by_id = |row: SqliteRow| Ok((parse(row.try_get("id")?)?, Arc::new(row)));
    Ok(rows.into_iter().map(by_id).collect::<sqlx::Result<_>>()?)
}

/// The statement of a list.
fn list(filter: &ListFilter) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(concat!("SELECT ", columns!(), " FROM "));
    if filter.by_status_and_type() {
        query.push("tasks WHERE seq IN (");
        push_walks(&mut query, filter);
        query.push(") ORDER BY seq DESC");
        return query;
    }
    push_source(&mut query, &filter.tags);
    push_names(&mut query, "status", filter.statuses.iter().map(|status| status.name()));
    push_names(&mut query, "task_type", filter.task_types.iter().map(|name| name.name()));
    if let Some(after) = filter.created_after {
        query.push(" AND created_at >= ").push_bind(after.as_micros());
    }
    if let Some(before) = filter.created_before {
        query.push(" AND created_at < ").push_bind(before.as_micros());
    }
    match filter.cursor {
        Some(cursor) if filter.by_time() => {
            query.push(" AND (created_at, seq) < (").push_bind(cursor.created_at.as_micros());
            query.push(", ").push_bind(cursor.seq).push(")");
        }
        Some(cursor) => {
            let position = if filter.tags.is_empty() { "seq" } else { "task_seq" };
            query.push(" AND ").push(position).push(" < ").push_bind(cursor.seq);
        }
        None => {}
    }
    query.push(match filter {
        filter if filter.by_time() => " ORDER BY created_at DESC, seq DESC LIMIT ",
        filter if !filter.tags.is_empty() => " ORDER BY task_seq DESC LIMIT ",
        _ => " ORDER BY seq DESC LIMIT ",
    });
    query.push_bind(filter.limit as i64);
    query
}

/// The `seq` of a page of tasks, by one walk for each type and status. `CROSS JOIN` keeps SQLite from
/// walking first and comparing names later.
fn push_walks(query: &mut QueryBuilder<Sqlite>, filter: &ListFilter) {
    query.push("SELECT walked.seq FROM ");
    match filter.task_types.is_empty() {
        true => query.push("task_types"),
        false => push_table(query, filter.task_types.iter().map(|name| name.name())),
    };
    query.push(" AS type CROSS JOIN ");
    let statuses = match filter.statuses.is_empty() {
        true => TaskStatus::ALL,
        false => &filter.statuses,
    };
    push_table(query, statuses.iter().map(|status| status.name()));
    query.push(
        " AS state CROSS JOIN tasks AS walked ON walked.seq IN \
         (SELECT seq FROM tasks WHERE task_type = type.name AND status = state.name",
    );
    if let Some(cursor) = filter.cursor {
        query.push(" AND seq < ").push_bind(cursor.seq);
    }
    query.push(" ORDER BY seq DESC LIMIT ").push_bind(filter.limit as i64);
    query.push(") ORDER BY walked.seq DESC LIMIT ").push_bind(filter.limit as i64);
}

/// A table of these names.
fn push_table(
    query: &mut QueryBuilder<Sqlite>,
    names: impl Iterator<Item = &'static str>,
) -> &mut QueryBuilder<Sqlite> {
    query.push("(SELECT column1 AS name FROM (VALUES ");
    let mut rows = query.separated(", ");
    for name in names {
        rows.push("(").push_bind_unseparated(name).push_unseparated(")");
    }
    query.push("))")
}

/// The table to walk, and the beginning of the conditions. With tags that is the index of the first
/// one; the others, and whatever else is wanted, are checked on each task that it leads to.
fn push_source(query: &mut QueryBuilder<Sqlite>, tags: &[(String, String)]) {
    let Some(((key, value), others)) = tags.split_first() else {
        query.push("tasks WHERE true");
        return;
    };
    query.push("task_tags CROSS JOIN tasks ON seq = task_seq WHERE key = ").push_bind(key);
    query.push(" AND value = ").push_bind(value);
    for (key, value) in others {
        query.push(" AND EXISTS (SELECT 1 FROM task_tags AS other WHERE other.key = ");
        query.push_bind(key).push(" AND other.value = ").push_bind(value);
        query.push(" AND other.task_seq = seq)");
    }
}

/// That a column has one of these values, if there are any. The plus keeps its index out of it.
fn push_names(
    query: &mut QueryBuilder<Sqlite>,
    column: &str,
    names: impl ExactSizeIterator<Item = &'static str>,
) {
    if names.len() == 0 {
        return;
    }
    query.push(" AND +").push(column).push(" IN (");
    let mut list = query.separated(", ");
    for name in names {
        list.push_bind(name);
    }
    query.push(")");
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;
    use crate::store::open::MIGRATIONS;

    #[tokio::test]
    async fn no_list_reads_the_whole_table() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for (_, _, sql) in MIGRATIONS {
            sqlx::raw_sql(*sql).execute(&mut connection).await.unwrap();
        }
        let (statuses, task_types) = (vec![TaskStatus::Failed], vec![TaskType::Tokenize]);
        let tags = vec![("k".to_owned(), "v".to_owned()), ("l".to_owned(), "w".to_owned())];
        let time = Some(Timestamp::now());
        let none = ListFilter { limit: 10, ..ListFilter::default() };
        for (filter, index) in [
            (
                ListFilter { statuses: statuses.clone(), ..none.clone() },
                "tasks_by_type (task_type=? AND status=?",
            ),
            (
                ListFilter { task_types: task_types.clone(), ..none.clone() },
                "tasks_by_type (task_type=? AND status=?",
            ),
            (
                ListFilter { statuses: statuses.clone(), task_types, ..none.clone() },
                "tasks_by_type (task_type=? AND status=?",
            ),
            (
                ListFilter { created_before: time, statuses, ..none.clone() },
                "tasks_by_time (created_at<?",
            ),
            (ListFilter { tags, ..none.clone() }, "task_tags USING PRIMARY KEY (key=? AND value=?"),
        ] {
            let list = list(&filter);
            let explain =
                sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", list.sql().as_str()));
            let rows = sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{filter:?}\n{plan:#?}");
            assert!(!plan.iter().any(|step| step.starts_with("SCAN tasks")), "{plan:#?}");
        }
    }
}
