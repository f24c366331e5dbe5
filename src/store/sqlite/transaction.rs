//! One transaction of the writer. Statements are buffered and sent together when a result is needed, at
//! the latest with the commit: the round trip to SQLite's thread takes longer than most statements.

use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Either, Executor, SqliteConnection};

use super::statements::{OverRows, Values};

/// Maximum number of rows per statement: SQLite allows 32,766 parameters.
const MAX_ROWS: usize = 1024;

pub(super) struct Transaction<'c> {
    connection: &'c mut SqliteConnection,
    /// Minimum number of rows per statement, NULL rows included. The same for all common statements, so
    /// that there are few distinct texts to prepare.
    rows: usize,
    sql: String,
    values: Values,
    statements: usize,
    /// Number of rows that each sent statement changed.
    changed: Vec<u64>,
}

/// Index of a statement within its transaction.
#[derive(Clone, Copy)]
pub(super) struct Written(usize);

impl<'c> Transaction<'c> {
    /// Begins a transaction whose common statements have up to `rows` rows.
    ///
    /// BEGIN and COMMIT are plain statements: SQLite rolls back by itself when the disk is full, and
    /// sqlx's transactions would lose track of that.
    pub(super) fn begin(connection: &'c mut SqliteConnection, rows: usize) -> Self {
        Self {
            connection,
            rows: rows.next_power_of_two(),
            sql: "BEGIN IMMEDIATE;".to_owned(),
            values: Values::default(),
            statements: 1,
            changed: Vec::new(),
        }
    }

    /// Adds a statement, or several if there are too many rows for one. `None` without rows.
    pub(super) fn write<T>(
        &mut self,
        statement: &OverRows,
        rows: &[T],
        bind: impl Fn(&mut Values, &T),
    ) -> Option<Written> {
        for rows in rows.chunks(MAX_ROWS) {
            let padded = self.rows.max(rows.len().next_power_of_two());
            self.sql.push_str(&statement.text(padded));
            self.sql.push(';');
            self.statements += 1;
            rows.iter().for_each(|row| bind(&mut self.values, row));
            self.values.pad((padded - rows.len()) * statement.columns.len());
        }
        (!rows.is_empty()).then_some(Written(self.statements - 1))
    }

    /// Sends all buffered statements, then a query; skips the query without rows.
    pub(super) async fn read<T>(
        &mut self,
        statement: &OverRows,
        rows: &[T],
        bind: impl Fn(&mut Values, &T),
    ) -> sqlx::Result<Vec<SqliteRow>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        statement.with(rows, bind).fetch_all(self.connection().await?).await
    }

    /// Sends all buffered statements and returns the connection.
    pub(super) async fn connection(&mut self) -> sqlx::Result<&mut SqliteConnection> {
        if !self.sql.is_empty() {
            let sql = AssertSqlSafe(std::mem::take(&mut self.sql));
            let values = std::mem::take(&mut self.values).into_arguments();
            let mut results = self.connection.fetch_many(sqlx::query_with(sql, values));
            while let Some(result) = results.try_next().await? {
                if let Either::Left(done) = result {
                    self.changed.push(done.rows_affected());
                }
            }
        }
        Ok(self.connection)
    }

    /// Commits.
    pub(super) async fn commit(mut self) -> sqlx::Result<Changed> {
        self.sql.push_str("COMMIT;");
        self.connection().await?;
        Ok(Changed(self.changed))
    }
}

/// Numbers of changed rows, by statement.
pub(super) struct Changed(Vec<u64>);

impl Changed {
    /// Number of rows that a statement changed.
    pub(super) fn by(&self, Written(statement): Written) -> u64 {
        self.0.get(statement).copied().unwrap_or_default()
    }
}
