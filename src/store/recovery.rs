//! What is put right when the server starts. The lock on the database says that whatever is
//! `running` now was interrupted by the end of the server.

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

use super::transitions::CANCELLED_MESSAGE;
use crate::task::{TaskId, TaskStatus, Timestamp};

/// The interruption after which a task is not tried again.
const MAX_INTERRUPTIONS: i64 = 3;

/// Ends the attempts that a crash interrupted: they run again, unless the task was to be cancelled
/// or the server has died too often while it ran.
pub(super) async fn recover(
    connection: &mut SqliteConnection,
    remove_partial: impl Fn(&str, TaskId, i64),
) -> sqlx::Result<()> {
    // First what lies on the disk: once the rows have moved on nobody knows the names any more.
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
    let recovered: Vec<SqliteRow> = sqlx::query(
        "UPDATE tasks SET \
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
         RETURNING id, task_type, status, error",
    )
    .bind(Timestamp::now().as_micros())
    .bind(MAX_INTERRUPTIONS)
    .bind(format!(
        "the server stopped {MAX_INTERRUPTIONS} times while this task ran, so it may be what stops it"
    ))
    .bind(CANCELLED_MESSAGE)
    .fetch_all(&mut *transaction)
    .await?;
    // Another build may have known less of tasks than this one.
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

/// A task that waits, by `seq`, with the time that it waits for and the one that a client asked for.
pub(super) type StoredDue = (i64, Timestamp, Option<Timestamp>);

/// The tasks that wait for a time.
pub(super) async fn due(connection: &mut SqliteConnection) -> sqlx::Result<Vec<StoredDue>> {
    let rows = sqlx::query(
        "SELECT seq, due_at, run_at FROM tasks WHERE due_at IS NOT NULL AND status = 'pending'",
    )
    .fetch_all(connection)
    .await?;
    let due = rows.iter().map(|row| {
        let run_at: Option<i64> = row.try_get(2)?;
        let due_at = Timestamp::from_micros(row.try_get(1)?);
        Ok((row.try_get(0)?, due_at, run_at.map(Timestamp::from_micros)))
    });
    due.collect()
}

/// Whether any task may be what killed the server before. No task becomes one while it works.
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
