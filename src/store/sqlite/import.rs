//! Imports the history of the FastAPI service that this server replaces. Its database has the same
//! file name, and a table of the same name with other columns.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

use crate::task::{TaskId, TaskStatus, Timestamp};

/// Whether the table `tasks` is that of the ported service.
pub(super) async fn is_ported_service(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    let columns = sqlx::query("SELECT name FROM pragma_table_info('tasks')")
        .fetch_all(connection)
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect::<sqlx::Result<Vec<String>>>()?;
    let expected = [
        "task_id",
        "task_type",
        "status",
        "progress",
        "message",
        "created_at",
        "started_at",
        "completed_at",
        "result",
        "error",
        "input_file_path",
        "output_file_path",
        "parameters",
    ];
    Ok(expected.iter().all(|name| columns.iter().any(|column| column == name)))
}

/// Moves the old table out of the way. One statement, so atomic.
pub(super) async fn begin(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::query("ALTER TABLE tasks RENAME TO ported_tasks").execute(connection).await?;
    Ok(())
}

/// Whether an import began and has not finished, perhaps because of a crash.
pub(super) async fn has_begun(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    let found = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'ported_tasks'")
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// Copies the old tasks and drops their table, in one transaction. Does nothing if there is no such
/// table.
pub(super) async fn finish(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    if !has_begun(connection).await? {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let rows = sqlx::query(
        "SELECT task_id, task_type, status, progress, message, created_at, started_at, \
                completed_at, result, error, input_file_path, output_file_path, parameters \
         FROM ported_tasks ORDER BY created_at, rowid",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let now = Timestamp::now();
    for row in &rows {
        insert(&mut transaction, row, now).await?;
    }
    sqlx::query("DROP TABLE ported_tasks").execute(&mut *transaction).await?;
    transaction.commit().await?;
    tracing::info!(tasks = rows.len(), "imported the history of the FastAPI service");
    Ok(())
}

async fn insert(
    connection: &mut SqliteConnection,
    row: &SqliteRow,
    now: Timestamp,
) -> sqlx::Result<()> {
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let id = text("task_id")?.and_then(|id| id.parse().ok()).unwrap_or_else(TaskId::new);
    let found: Option<TaskStatus> = text("status")?.and_then(|status| status.parse().ok());
    let created_at = time(text("created_at")?).unwrap_or(now);
    let mut message = text("message")?.unwrap_or_default();
    let mut error = text("error")?;
    let mut completed_at = time(text("completed_at")?);
    let status = found.filter(|status| status.is_final()).unwrap_or(TaskStatus::Failed);
    if found != Some(status) {
        let reason = "the FastAPI service stopped before this task ended";
        message = format!("Task failed: {reason}");
        error = Some(reason.to_owned());
        completed_at = Some(now);
    }
    let cancelled_at = completed_at.filter(|_| status == TaskStatus::Cancelled);
    sqlx::query(
        "INSERT OR IGNORE INTO tasks \
             (id, task_type, status, progress, message, created_at, started_at, completed_at, \
              result, error, input_file_path, output_file_path, parameters, tags, priority, \
              max_attempts, attempt, updated_at, cancel_requested_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, '{}', 0, 1, ?14, ?15, ?16)",
    )
    .bind(id.to_string())
    .bind(text("task_type")?.unwrap_or_default())
    .bind(status.name())
    .bind(row.try_get::<Option<f64>, _>("progress")?.unwrap_or_default())
    .bind(message)
    .bind(created_at.as_micros())
    .bind(time(text("started_at")?).map(Timestamp::as_micros))
    .bind(completed_at.map(Timestamp::as_micros))
    .bind(text("result")?.map(|result| json(&result).unwrap_or(Value::String(result)).to_string()))
    .bind(error)
    .bind(text("input_file_path")?)
    .bind(text("output_file_path")?)
    .bind(
        text("parameters")?
            .and_then(|parameters| json(&parameters))
            .filter(Value::is_object)
            .unwrap_or_else(|| Value::Object(Default::default()))
            .to_string(),
    )
    .bind(i64::from(text("started_at")?.is_some()))
    .bind(completed_at.unwrap_or(created_at).as_micros())
    .bind(cancelled_at.map(Timestamp::as_micros))
    .execute(connection)
    .await?;
    Ok(())
}

fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// Parses an RFC 3339 time, or Python's `datetime.now().isoformat()`: local time without a zone.
fn time(text: Option<String>) -> Option<Timestamp> {
    let text = text?;
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let local: DateTime = text.parse().ok()?;
    let zoned = local.to_zoned(TimeZone::system()).ok()?;
    Some(Timestamp::from_micros(zoned.timestamp().as_microsecond()))
}
