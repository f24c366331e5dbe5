//! Tasks that this build can run, and those that it cannot: of a type, or with parameters, that it does
//! not know. The latter are listed as they are and stop nothing.

use sqlx::{Row, SqliteConnection};

use super::places::Limits;
use super::transitions::parse;
use super::{Store, StoreError};
use crate::task::TaskId;

/// The pending tasks of unknown types, by `seq`. Nobody looks at them to run them.
pub(super) async fn of_unknown_types(
    connection: &mut SqliteConnection,
    limits: &Limits,
) -> sqlx::Result<Vec<i64>> {
    let known: Vec<_> = limits.by_type.iter().map(|(name, _)| *name).collect();
    let rows = sqlx::query(
        "SELECT seq FROM tasks WHERE status = 'pending' AND task_type IN \
             (SELECT name FROM task_types WHERE name NOT IN (SELECT value FROM json_each(?1)))",
    )
    .bind(json(&known))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

impl Store {
    /// The pending task of these types that was submitted last, without those that were set aside. Of
    /// each type the newest thousand are looked at.
    pub(crate) async fn newest_runnable(
        &self,
        types: &[&'static str],
    ) -> Result<Option<TaskId>, StoreError> {
        let newest = sqlx::query(
            "SELECT id FROM tasks WHERE seq = (SELECT max((SELECT max(seq) FROM \
                 (SELECT seq, held FROM tasks WHERE task_type = value AND status = 'pending' \
                  ORDER BY seq DESC LIMIT 1000) WHERE held = 0)) \
             FROM json_each(?1))",
        )
        .bind(json(types))
        .fetch_optional(self.readers.points())
        .await?;
        Ok(newest.map(|row| parse(row.try_get(0)?)).transpose()?)
    }
}

fn json(names: &[&'static str]) -> String {
    serde_json::Value::from(names).to_string()
}
