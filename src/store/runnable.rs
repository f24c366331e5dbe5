//! Tasks that this build can run, and those that it cannot: of a type, or with parameters, that it does
//! not know. The latter are listed as they are and stop nothing.

use sqlx::{Row, SqliteConnection};

use super::places::Limits;
use super::transitions::parse;
use super::{Store, StoreError};
use crate::task::TaskId;

const OF_UNKNOWN_TYPES: &str = "SELECT seq FROM tasks WHERE status = 'pending' AND task_type IN \
     (SELECT name FROM task_types WHERE name NOT IN (SELECT value FROM json_each(?1)))";

const NEWEST_RUNNABLE: &str = "SELECT id FROM tasks WHERE seq = (SELECT max((SELECT max(seq) FROM \
         (SELECT seq, held FROM tasks WHERE task_type = value AND status = 'pending' \
          ORDER BY seq DESC LIMIT 1000) WHERE held = 0)) \
     FROM json_each(?1))";

/// The pending tasks of unknown types, by `seq`. Nobody looks at them to run them.
pub(super) async fn of_unknown_types(
    connection: &mut SqliteConnection,
    limits: &Limits,
) -> sqlx::Result<Vec<i64>> {
    let known: Vec<_> = limits.by_type.iter().map(|(name, _)| *name).collect();
    let rows = sqlx::query(OF_UNKNOWN_TYPES).bind(json(&known)).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

impl Store {
    /// The pending task of these types that was submitted last, without those that were set aside. Of
    /// each type the newest thousand are looked at.
    pub(crate) async fn newest_runnable(
        &self,
        types: &[&'static str],
    ) -> Result<Option<TaskId>, StoreError> {
        let newest = sqlx::query(NEWEST_RUNNABLE).bind(json(types));
        let newest = newest.fetch_optional(self.readers.points()).await?;
        Ok(newest.map(|row| parse(row.try_get(0)?)).transpose()?)
    }
}

fn json(names: &[&'static str]) -> String {
    serde_json::Value::from(names).to_string()
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection};

    use super::*;
    use crate::store::open::MIGRATIONS;

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
