//! The task types that this server can run, and those of stored tasks. They change while it runs.

use std::sync::Arc;

use parking_lot::RwLock;
use sqlx::{Row, SqliteConnection};

use crate::store::change::NewTypes;
use crate::store::slots::Limits;

/// Task types. Written by the writer after each commit that changes them, read by all readers.
#[derive(Debug)]
pub(crate) struct KnownTypes(RwLock<Known>);

#[derive(Debug)]
struct Known {
    limits: Arc<Limits>,
    /// Runnable types first, then further types of stored tasks. Never shrinks.
    listed: Arc<[String]>,
}

impl KnownTypes {
    pub(super) async fn read(
        connection: &mut SqliteConnection,
        limits: &Limits,
    ) -> sqlx::Result<Self> {
        let mut listed: Vec<_> = limits.names().into_iter().map(str::to_owned).collect();
        for row in &sqlx::query("SELECT name FROM task_types").fetch_all(connection).await? {
            add(&mut listed, row.try_get(0)?);
        }
        let limits = Arc::new(limits.clone());
        Ok(Self(RwLock::new(Known { limits, listed: listed.into() })))
    }

    /// Limits of the types that this server can run.
    pub(super) fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.0.read().limits)
    }

    /// Names of all types that a list may have to show.
    pub(super) fn listed(&self) -> Arc<[String]> {
        Arc::clone(&self.0.read().listed)
    }

    pub(super) fn set(&self, limits: Limits) {
        let mut known = self.0.write();
        let mut listed = known.listed.to_vec();
        limits.names().into_iter().for_each(|name| add(&mut listed, name));
        (known.limits, known.listed) = (Arc::new(limits), listed.into());
    }
}

fn add(listed: &mut Vec<String>, name: &str) {
    if !listed.iter().any(|listed| listed == name) {
        listed.push(name.to_owned());
    }
}

pub(super) const OF_UNKNOWN_TYPES: &str = "SELECT seq FROM tasks WHERE status = 'pending' AND task_type IN \
     (SELECT name FROM task_types WHERE name NOT IN (SELECT value FROM json_each(?1)))";

/// Returns the pending tasks of types that this server cannot run, by `seq`.
pub(super) async fn of_unknown_types(
    connection: &mut SqliteConnection,
    limits: &Limits,
) -> sqlx::Result<Vec<i64>> {
    let known = serde_json::Value::from(limits.names()).to_string();
    let rows = sqlx::query(OF_UNKNOWN_TYPES).bind(known).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Makes tasks of changed types claimable again that could not be run before. Returns all pending tasks
/// that still cannot be run, by `seq`.
pub(super) async fn look_again(
    connection: &mut SqliteConnection,
    types: &[&NewTypes],
) -> sqlx::Result<Vec<i64>> {
    let changed: Vec<_> = types.iter().flat_map(|types| types.changed.iter().copied()).collect();
    let again = "UPDATE tasks SET held = 0, message = '' \
                 WHERE held = 1 AND task_type IN (SELECT value FROM json_each(?1))";
    let changed = serde_json::Value::from(changed).to_string();
    sqlx::query(again).bind(changed).execute(&mut *connection).await?;
    let mut unrunnable = match types.last() {
        Some(types) => of_unknown_types(connection, &types.limits).await?,
        None => Vec::new(),
    };
    let held = sqlx::query("SELECT seq FROM tasks WHERE held = 1").fetch_all(connection).await?;
    for row in &held {
        unrunnable.push(row.try_get(0)?);
    }
    Ok(unrunnable)
}
