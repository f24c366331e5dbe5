//! Statements over many rows: what a batch changes is handed to SQLite as one table of values.

use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite};

pub(super) type Statement = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

/// A statement that reads the table `new`, which has these columns.
///
/// The table is padded with rows of NULL to a power of two, so that a handful of prepared statements
/// serve batches of any size. The statement has to leave those out; it can have no parameters.
pub(super) struct OverRows {
    pub(super) columns: &'static [&'static str],
    pub(super) sql: &'static str,
}

impl OverRows {
    /// The statement with a row in `new` for each of `rows`; `bind` binds its columns in order.
    /// What has no answer goes through [`Transaction::write`](super::transaction::Transaction).
    pub(super) fn with<T>(
        &self,
        rows: &[T],
        bind: impl Fn(Statement, &T) -> Statement,
    ) -> Statement {
        let sql = self.text(rows.len().next_power_of_two());
        // Parameters that are not bound are NULL.
        rows.iter().fold(sqlx::query(AssertSqlSafe(sql)), bind)
    }

    pub(super) fn text(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.columns.len()].join(","));
        let table = vec![row.as_str(); rows].join(",");
        format!("WITH new ({}) AS (VALUES {table}) {}", self.columns.join(", "), self.sql)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, QueryBuilder, Row, SqliteConnection};

    use super::*;
    use crate::store::{claims, idempotency, open, queries, retention, submissions, transitions};

    #[tokio::test]
    async fn no_statement_reads_more_than_it_needs() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for (_, _, sql) in open::MIGRATIONS {
            sqlx::raw_sql(*sql).execute(&mut connection).await.unwrap();
        }
        let mut ready = QueryBuilder::new("");
        claims::push_ready(&mut ready, &[("a", 7), ("b", 8)], 9);
        // The walks are merged in memory, a handful of numbers for each task that is claimed.
        let ready = ready.sql().as_str().replace(") ORDER BY priority DESC, seq LIMIT", ") LIMIT");
        let statements = [
            transitions::PROGRESS,
            transitions::END,
            transitions::ENDED,
            transitions::PROMOTE,
            transitions::CANCEL,
            transitions::STATUSES,
            claims::SUSPECT,
            claims::CLAIM,
            claims::HOLD,
            submissions::OUTPUT_OWNERS,
            submissions::INSERT,
            submissions::INSERT_TAGS,
            idempotency::KNOWN,
            queries::LOOK_UP,
            idempotency::REMEMBER,
        ];
        let erasures = retention::ERASE.iter().map(|statement| statement.text(8));
        let statements = statements.iter().map(|statement| statement.text(8));
        for sql in statements.chain(erasures).chain([ready]) {
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let rows = sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            for step in &plan {
                let scanned = step.strip_prefix("SCAN ").unwrap_or_default();
                let reads_all = ["tasks", "task_tags", "idempotency_keys"]
                    .iter()
                    .any(|table| scanned.starts_with(table));
                // There are hardly ever any, and this is their order.
                let suspects = step.ends_with("tasks_suspect");
                let wasteful = reads_all && !suspects
                    || step.contains("(status=?)")
                    || step.contains("TEMP B-TREE")
                    || step.contains("AUTOMATIC");
                assert!(!wasteful, "{sql}\n{plan:#?}");
            }
        }
    }
}
