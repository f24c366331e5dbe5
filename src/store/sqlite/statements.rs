//! Statements over many rows: a batch is handed to SQLite as one table of values.

use std::collections::HashSet;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, Type};

/// A statement that reads a table `new` with these columns.
///
/// The table is padded with NULL rows to a power of two, so that a few prepared statements serve batches
/// of any size. The statement must ignore those rows, and can have no other parameters.
pub(super) struct OverRows {
    pub(super) columns: &'static [&'static str],
    pub(super) sql: &'static str,
}

impl OverRows {
    /// Query with a row in `new` for each of `rows`; `bind` binds the columns in order. For statements
    /// that return rows; others use [`Transaction::write`](super::transaction::Transaction).
    pub(super) fn with<T>(
        &self,
        rows: &[T],
        bind: impl Fn(&mut Values, &T),
    ) -> Query<'static, Sqlite, SqliteArguments> {
        let sql = self.text(rows.len().next_power_of_two());
        let mut values = Values::default();
        rows.iter().for_each(|row| bind(&mut values, row));
        sqlx::query_with(AssertSqlSafe(sql), values.into_arguments())
    }

    pub(super) fn text(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.columns.len()].join(","));
        let table = vec![row.as_str(); rows].join(",");
        format!("WITH new ({}) AS (VALUES {table}) {}", self.columns.join(", "), self.sql)
    }
}

/// Values of the rows, in order.
#[derive(Default)]
pub(super) struct Values {
    arguments: SqliteArguments,
    /// Number of pending NULLs. Unbound parameters are NULL, so trailing ones are never bound.
    nulls: usize,
    /// Bound texts. Equal texts share one allocation, because each would be freed on another thread.
    texts: HashSet<Arc<str>, FxBuildHasher>,
}

impl Values {
    /// Binds a number, NULL, or a text that hardly repeats, such as an id.
    pub(super) fn bind<'v, V: Encode<'v, Sqlite> + Type<Sqlite>>(&mut self, value: V) -> &mut Self {
        for _ in 0..std::mem::take(&mut self.nulls) {
            self.bind(None::<i64>);
        }
        self.arguments.add(value).expect("numbers and texts can be bound");
        self
    }

    /// Binds a text that may repeat, or NULL.
    pub(super) fn text<'t>(&mut self, text: impl Into<Option<&'t str>>) -> &mut Self {
        let Some(text) = text.into() else { return self.bind(None::<i64>) };
        let text = match self.texts.get(text) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<str> = text.into();
                self.texts.insert(Arc::clone(&new));
                new
            }
        };
        self.bind(text)
    }

    /// Binds that many NULLs.
    pub(super) fn pad(&mut self, nulls: usize) {
        self.nulls += nulls;
    }

    pub(super) fn into_arguments(self) -> SqliteArguments {
        self.arguments
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, QueryBuilder, Row, SqliteConnection};

    use super::*;
    use crate::store::sqlite::{
        claims, logs, outputs, reads, retention, retries, schema, submissions, transitions,
    };

    #[tokio::test]
    async fn no_check_makes_a_table_for_each_row() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for (_, _, sql) in schema::MIGRATIONS {
            sqlx::raw_sql(*sql).execute(&mut connection).await.unwrap();
        }
        for (statement, tables) in [(submissions::INSERT, 0), (transitions::END, 2)] {
            let explain = AssertSqlSafe(format!("EXPLAIN {}", statement.text(8)));
            let rows = sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap();
            let made = rows.iter().filter(|row| row.get::<&str, _>("opcode") == "OpenEphemeral");
            // Those of an update are over all rows: the new values, and what they are for.
            assert_eq!(made.count(), tables, "{}", statement.sql);
        }
    }

    #[tokio::test]
    async fn no_statement_reads_more_than_it_needs() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for (_, _, sql) in schema::MIGRATIONS {
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
            claims::SET_UNRUNNABLE,
            outputs::OWNERS,
            outputs::INSIDE,
            submissions::INSERT,
            submissions::INSERT_TAGS,
            submissions::KNOWN_KEYS,
            reads::LOOK_UP,
            submissions::REMEMBER,
            retries::RETRIED,
            retries::NOTE,
            retries::NOTE_FOUND,
            logs::STORE,
            logs::OWNERS,
        ];
        let erasures = retention::ERASE.iter().map(|statement| statement.text(8));
        let statements = statements.iter().map(|statement| statement.text(8));
        for sql in statements.chain(erasures).chain([ready]) {
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let rows = sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            for step in &plan {
                let scanned = step.strip_prefix("SCAN ").unwrap_or_default();
                let reads_all = ["tasks", "task_tags", "task_logs", "idempotency_keys"]
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
