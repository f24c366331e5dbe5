//! One transaction of the writer. Statements gather, and are sent together with the first one whose
//! answer is needed, at the latest with the commit: the way to SQLite's thread and back takes longer
//! than most statements.

use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Either, Executor, SqliteConnection};

use super::statements::{OverRows, Values};

/// As many rows as one statement takes: SQLite has a limit of 32,766 parameters.
const MAX_ROWS: usize = 1024;

pub(super) struct Transaction<'c> {
    connection: &'c mut SqliteConnection,
    /// How many rows a statement has at least, those that are all NULL included. One number for all
    /// that are usual, so that there are few different texts to prepare.
    rows: usize,
    sql: String,
    values: Values,
    statements: usize,
    /// How many rows each statement changed that was sent.
    changed: Vec<u64>,
}

/// Names a statement of a transaction.
#[derive(Clone, Copy)]
pub(super) struct Written(usize);

impl<'c> Transaction<'c> {
    /// Begins a transaction whose usual statements are over up to that many rows.
    ///
    /// The statements around it are plain ones: SQLite ends a transaction by itself when the disk is
    /// full, and sqlx's own bookkeeping would not believe that.
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

    /// Adds a statement; more rows than one takes are spread over several. None for no rows.
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

    /// Rows that a statement reads after everything that was added; none for no rows.
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

    /// The connection, with everything written that was added.
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

/// What a transaction has changed.
pub(super) struct Changed(Vec<u64>);

impl Changed {
    /// How many rows a statement has changed.
    pub(super) fn by(&self, Written(statement): Written) -> u64 {
        self.0.get(statement).copied().unwrap_or_default()
    }
}
