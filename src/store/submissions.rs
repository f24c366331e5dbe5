//! Stores new tasks, with what makes them findable and unrepeatable.

use sqlx::{Row, SqliteConnection};

use super::transitions::{parse, to_json};
use super::{NewTask, Submitted, idempotency};
use crate::task::{TaskId, Timestamp};

/// Stores new tasks. The outcomes are in the order of `tasks`.
pub(super) async fn submit(
    connection: &mut SqliteConnection,
    tasks: &[&NewTask],
) -> sqlx::Result<Vec<Submitted>> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let known = idempotency::known(connection, tasks).await?;
    if known.is_empty() {
        return insert(connection, tasks).await;
    }
    let replay = |task: &NewTask| known.get(&task.idempotency.as_ref()?.key).cloned();
    let new: Vec<_> = tasks.iter().copied().filter(|task| replay(task).is_none()).collect();
    let mut inserted = insert(connection, &new).await?.into_iter();
    let outcome = |task: &&NewTask| match replay(task) {
        Some(replay) => Some(Submitted::Replayed(replay)),
        None => inserted.next(),
    };
    Ok(tasks.iter().map_while(outcome).collect())
}

/// Stores tasks that were not stored before.
async fn insert(
    connection: &mut SqliteConnection,
    tasks: &[&NewTask],
) -> sqlx::Result<Vec<Submitted>> {
    let rows: Vec<_> = tasks
        .iter()
        .map(|task| {
            (
                task.id,
                task.task_type,
                task.priority,
                task.parameters.get(),
                &task.input_file_path,
                &task.output_file_path,
                &task.output_key,
                task.timeout_seconds,
                task.max_attempts,
                task.created_at.as_micros(),
                &task.tags,
                task.run_at.map(Timestamp::as_micros),
                task.retry_of,
            )
        })
        .collect();
    let stored = sqlx::query(
        "INSERT INTO tasks (id, task_type, priority, parameters, input_file_path, \
                            output_file_path, output_key, timeout_seconds, max_attempts, \
                            created_at, updated_at, status, tags, run_at, due_at, retry_of) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, \
                value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 9, 'pending', \
                value -> 10, value ->> 11, value ->> 11, value ->> 12 \
         FROM json_each(?1) WHERE true \
         ON CONFLICT (output_key) WHERE output_key IS NOT NULL AND status IN ('pending', 'running') \
         DO NOTHING",
    )
    .bind(to_json(&rows)?)
    .execute(&mut *connection)
    .await?;
    let mut outcomes = Vec::with_capacity(tasks.len());
    let all_stored = stored.rows_affected() == tasks.len() as u64;
    for task in tasks {
        // Only a task with an output can have met a conflict.
        let owner = match &task.output_key {
            Some(key) if !all_stored => output_owner(connection, key).await?,
            _ => task.id,
        };
        outcomes.push(match owner == task.id {
            true => Submitted::Stored { due: due(connection, task).await? },
            false => Submitted::OutputInUse(owner),
        });
    }
    let stored = tasks.iter().copied().zip(&outcomes);
    let stored = stored.filter(|(_, outcome)| matches!(outcome, Submitted::Stored { .. }));
    let stored: Vec<_> = stored.map(|(task, _)| task).collect();
    idempotency::remember(connection, &stored).await?;
    insert_tags(connection, &stored).await?;
    Ok(outcomes)
}

/// When a stored task is to run, if not at once.
async fn due(
    connection: &mut SqliteConnection,
    task: &NewTask,
) -> sqlx::Result<Option<(i64, Timestamp)>> {
    let Some(time) = task.run_at else { return Ok(None) };
    let row = sqlx::query("SELECT seq FROM tasks WHERE id = ?1")
        .bind(task.id.to_string())
        .fetch_one(connection)
        .await?;
    Ok(Some((row.try_get(0)?, time)))
}

/// Makes stored tasks findable by their tags.
async fn insert_tags(connection: &mut SqliteConnection, tasks: &[&NewTask]) -> sqlx::Result<()> {
    let tagged: Vec<_> =
        tasks.iter().filter(|task| !task.tags.is_empty()).map(|task| task.id).collect();
    if tagged.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO task_tags (key, value, task_seq) \
         SELECT tag.key, tag.value, tasks.seq \
         FROM json_each(?1) AS tagged CROSS JOIN tasks ON tasks.id = tagged.value, \
              json_each(tasks.tags) AS tag",
    )
    .bind(to_json(&tagged)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// The unfinished task that writes this output.
async fn output_owner(connection: &mut SqliteConnection, key: &str) -> sqlx::Result<TaskId> {
    let row = sqlx::query(
        "SELECT id FROM tasks WHERE output_key = ?1 AND status IN ('pending', 'running')",
    )
    .bind(key)
    .fetch_one(connection)
    .await?;
    parse(row.try_get(0)?)
}
