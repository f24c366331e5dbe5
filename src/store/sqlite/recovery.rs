//! Recovery at the start, and the facts about stored tasks that the start needs. The lock on the
//! database guarantees that every task that is `running` now was interrupted by the end of a server.

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

use super::columns::parse;
use super::types;
use crate::store::counts::Counts;
use crate::store::record::{CANCELLED_MESSAGE, StoredDue};
use crate::store::slots::Limits;
use crate::task::{TaskId, TaskStatus, Timestamp};

/// Maximum wait for the count of finished tasks: enough for a million or two.
const COUNT_WAIT: Duration = Duration::from_millis(250);

/// Number of interruptions after which a task fails.
const MAX_INTERRUPTIONS: i64 = 3;

const RECOVER: &str = "UPDATE tasks SET \
         interruptions = interruptions + 1, \
         attempt = attempt - 1, \
         updated_at = ?1, \
         status = CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled' \
                       WHEN interruptions + 1 >= ?2 THEN 'failed' \
                       ELSE 'pending' END, \
         completed_at = iif(cancel_requested_at IS NOT NULL OR interruptions + 1 >= ?2, \
                            ?1, NULL), \
         message = CASE WHEN cancel_requested_at IS NOT NULL THEN ?4 \
                        WHEN interruptions + 1 >= ?2 THEN 'Task failed: ' || ?3 \
                        ELSE '' END, \
         error = iif(cancel_requested_at IS NULL AND interruptions + 1 >= ?2, ?3, error), \
         progress = iif(cancel_requested_at IS NOT NULL OR interruptions + 1 >= ?2, \
                        progress, 0) \
     WHERE task_type IN (SELECT name FROM task_types) AND status = 'running' \
     RETURNING id, task_type, status, error";

/// Ends the attempts that a crash interrupted. Their tasks run again, unless cancellation was requested
/// or the server crashed too often while they ran.
pub(super) async fn recover(
    connection: &mut SqliteConnection,
    remove_partial: impl Fn(&str, TaskId, i64),
) -> sqlx::Result<()> {
    // Partial files first: their names follow from the rows as they are now.
    let interrupted = sqlx::query(
        "SELECT id, epoch, output_file_path FROM tasks \
             WHERE task_type IN (SELECT name FROM task_types) AND status = 'running'",
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in &interrupted {
        let id: &str = row.try_get(0)?;
        if let (Ok(id), Some(path)) = (id.parse(), row.try_get::<Option<&str>, _>(2)?) {
            remove_partial(path, id, row.try_get(1)?);
        }
    }

    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let failure = format!(
        "the server stopped {MAX_INTERRUPTIONS} times while this task ran, so it may be what stops it"
    );
    let recovered: Vec<SqliteRow> = sqlx::query(RECOVER)
        .bind(Timestamp::now().as_micros())
        .bind(MAX_INTERRUPTIONS)
        .bind(failure)
        .bind(CANCELLED_MESSAGE)
        .fetch_all(&mut *transaction)
        .await?;
    // This build may be able to run what another one could not.
    sqlx::query("UPDATE tasks SET held = 0, message = '' WHERE held = 1")
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    if !recovered.is_empty() {
        let tasks = recovered.len();
        tracing::warn!(tasks, "the server was not shut down; recovered running tasks");
    }
    for row in &recovered {
        let [id, task_type, status, error]: [Option<&str>; 4] =
            [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?];
        if status == Some(TaskStatus::Failed.name()) {
            tracing::warn!(task.id = id, task.r#type = task_type, error, "task failed");
        }
    }
    Ok(())
}

/// Returns the tasks that wait for a time.
pub(super) async fn due(connection: &mut SqliteConnection) -> sqlx::Result<Vec<StoredDue>> {
    let rows = sqlx::query(
        "SELECT seq, due_at, run_at FROM tasks WHERE due_at IS NOT NULL AND status = 'pending'",
    )
    .fetch_all(connection)
    .await?;
    let due = rows.iter().map(|row| {
        let run_at = row.try_get::<Option<i64>, _>(2)?.map(Timestamp::from_micros);
        let due_at = Timestamp::from_micros(row.try_get(1)?);
        Ok(StoredDue { seq: row.try_get(0)?, due_at, run_at })
    });
    due.collect()
}

/// Whether there are suspects: tasks that may be crashing the server. Only a start creates them.
pub(super) async fn has_suspects(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    let row = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM tasks \
             WHERE task_type IN (SELECT name FROM task_types) AND status = 'pending' \
               AND interruptions >= 2)",
    )
    .fetch_one(connection)
    .await?;
    row.try_get(0)
}

/// Counts the tasks along an index of types and statuses. If there are millions of finished tasks they
/// are added later: the connection keeps its snapshot, so the writer's changes meanwhile add up.
pub(super) async fn count(
    mut connection: SqliteConnection,
    limits: &Limits,
) -> sqlx::Result<Arc<Counts>> {
    let counts = Arc::<Counts>::default();
    sqlx::query("BEGIN").execute(&mut connection).await?;
    for status in TaskStatus::ALL.iter().filter(|status| !status.is_final()) {
        let count = "SELECT count(*) FROM tasks \
                     WHERE task_type IN (SELECT name FROM task_types) AND status = ?1";
        let row = sqlx::query(count).bind(status.name()).fetch_one(&mut connection).await?;
        counts.add(*status, row.try_get(0)?);
    }
    counts.replace_unrunnable(types::of_unknown_types(&mut connection, limits).await?);
    let counting = tokio::spawn(add_finished(Arc::clone(&counts), connection));
    // The result is in the counts, or in the log.
    let _ = tokio::time::timeout(COUNT_WAIT, counting).await;
    Ok(counts)
}

async fn add_finished(counts: Arc<Counts>, mut connection: SqliteConnection) {
    let count = "SELECT status, count(*) FROM tasks GROUP BY task_type, status";
    let added = sqlx::query(count).fetch_all(&mut connection).await.and_then(|rows| {
        rows.iter().try_for_each(|row| {
            let status: TaskStatus = parse(row.try_get(0)?)?;
            if status.is_final() {
                counts.add(status, row.try_get(1)?);
            }
            Ok(())
        })
    });
    if let Err(error) = added {
        tracing::warn!(%error, "cannot count the finished tasks");
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection};

    use super::*;
    use crate::store::sqlite::reads::NEWEST_RUNNABLE;
    use crate::store::sqlite::schema::MIGRATIONS;
    use crate::store::sqlite::types::OF_UNKNOWN_TYPES;

    #[tokio::test]
    async fn neither_look_reads_the_whole_table() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for (_, _, sql) in MIGRATIONS {
            sqlx::raw_sql(*sql).execute(&mut connection).await.unwrap();
        }
        for sql in [OF_UNKNOWN_TYPES, NEWEST_RUNNABLE] {
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let rows = sqlx::query(explain).fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            let by_type = "tasks_by_type (task_type=? AND status=?)";
            assert!(plan.iter().any(|step| step.contains(by_type)), "{sql}\n{plan:#?}");
            assert!(!plan.iter().any(|step| step.starts_with("SCAN tasks")), "{sql}\n{plan:#?}");
        }
    }
}
