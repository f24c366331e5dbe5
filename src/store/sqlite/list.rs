//! Lists: pages of tasks, newest first, each at a bounded cost.
//!
//! A page walks candidates in descending order of `seq`: along the index of types, the index of tags or
//! the table itself. Conditions that the walk does not cover (a time, another tag, a retry) are checked
//! on each candidate's row. A page ends when it is full, at [`MAX_PAGE_BYTES`], after [`MAX_EXAMINED`]
//! candidates, or at its time limit; the next page continues there.

use std::ops::Range;

use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::columns::{self, columns};
use super::reads::ReadHalf;
use super::times;
use crate::store::counts::Counts;
use crate::store::error::StoreError;
use crate::store::filter::{Cursor, ListFilter, MAX_PAGE_BYTES, TaskPage};
use crate::store::record::TaskRecord;
use crate::task::TaskStatus;

/// Maximum number of candidates per page: a few tens of milliseconds.
const MAX_EXAMINED: i64 = 20_000;
/// Memory of a row besides its texts.
const ROW_BYTES: usize = 512;
/// Number of candidates in the first statement of a page that checks rows; later ones take more.
const FIRST_STEP: i64 = 256;
/// Maximum number of merged walks, one per type and status. SQLite allows 500.
const MAX_WALKS: usize = 64;

impl ReadHalf {
    /// Returns one page of tasks, newest first, at a bounded cost.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] if its turn does not come in time.
    pub(crate) async fn list(&self, filter: &ListFilter) -> Result<TaskPage, StoreError> {
        if filter.retried.is_some() {
            self.check_retries_known()?;
        }
        let ranges = self.times.ranges(filter);
        let mut scan = self.readers.scan().await?;
        let types = self.types.listed();
        let mut walk = Walk::new(filter, &types, &self.counts);
        walk.run(scan.connection(), &ranges).await?;
        // Before the rows are decoded, so that the next scan can start.
        scan.finish();
        walk.into_page()
    }

    /// Returns the newest pending task.
    pub(crate) async fn newest_pending(&self) -> Result<Option<TaskRecord>, StoreError> {
        let newest =
            ListFilter { statuses: vec![TaskStatus::Pending], limit: 1, ..ListFilter::default() };
        let types = self.types.listed();
        let walk = Walk::new(&newest, &types, &Counts::default());
        let row =
            walk.rows(&(0..i64::MAX), 1).build().fetch_optional(self.readers.points()).await?;
        Ok(row.as_ref().map(columns::read).transpose()?)
    }
}

/// Whether one page can check all tasks with these statuses. Finished tasks accumulate.
fn are_few(counts: &Counts, statuses: &[TaskStatus]) -> bool {
    let tasks: u64 = statuses.iter().map(|&status| counts.get(status)).sum();
    let unfinished = !statuses.iter().any(|status| status.is_final());
    unfinished && !statuses.is_empty() && tasks <= MAX_EXAMINED.unsigned_abs()
}

/// Order in which candidates are found.
enum Source<'f> {
    /// The order of submission.
    Table,
    /// The index of types, one walk for each of these types and statuses.
    Types(Vec<(&'f str, TaskStatus)>),
    /// The index of tags.
    Tag(&'f (String, String)),
}

/// One page in progress.
struct Walk<'f> {
    filter: &'f ListFilter,
    source: Source<'f>,
    /// Rows of the page. Decoded at the end: SQLite's thread would wait for a reader that decodes each.
    rows: Vec<SqliteRow>,
    bytes: usize,
    /// All candidates from this `seq` on have been examined.
    position: i64,
    examined: i64,
    /// Start of the next page.
    next: Option<Cursor>,
}

impl<'f> Walk<'f> {
    fn new(filter: &'f ListFilter, types: &'f [String], counts: &Counts) -> Self {
        let position = filter.cursor.map_or(i64::MAX, |cursor| cursor.seq);
        let source = Source::new(filter, types, counts);
        Self { filter, source, rows: Vec::new(), bytes: 0, position, examined: 0, next: None }
    }

    /// Fills the page from these ranges of `seq`.
    async fn run(
        &mut self,
        connection: &mut SqliteConnection,
        ranges: &[Range<i64>],
    ) -> Result<(), StoreError> {
        let begin = self.position;
        let cut = match self.try_run(connection, ranges).await {
            Ok(cut) => cut,
            // Interrupted at its time limit. The next page continues here.
            Err(StoreError::Overloaded) if self.position < begin => true,
            Err(error) => return Err(error),
        };
        self.next = cut.then_some(Cursor { seq: self.position });
        Ok(())
    }

    /// Returns whether there may be more tasks.
    async fn try_run(
        &mut self,
        connection: &mut SqliteConnection,
        ranges: &[Range<i64>],
    ) -> Result<bool, StoreError> {
        for range in ranges {
            let mut range = range.clone();
            loop {
                let step = self.step();
                if self.fill(connection, &range, step).await? {
                    return Ok(true);
                }
                let Some(last) = self.last(connection, &range, step).await? else { break };
                self.position = last;
                range.end = last;
                self.examined += step;
                if self.examined >= MAX_EXAMINED {
                    return Ok(true);
                }
            }
            self.position = range.start;
        }
        Ok(times::is_cut(ranges))
    }

    /// Number of candidates in the next statement.
    fn step(&self) -> i64 {
        let wanted = self.wanted() as i64;
        match self.checks() {
            true => {
                (3 * self.examined).max(FIRST_STEP).max(wanted).min(MAX_EXAMINED - self.examined)
            }
            false => wanted,
        }
    }

    /// Number of tasks still wanted. One more than fits reveals that there is another page.
    fn wanted(&self) -> usize {
        self.filter.limit + 1 - self.rows.len()
    }

    /// Takes the tasks among the next candidates. Returns whether the page is full.
    async fn fill(
        &mut self,
        connection: &mut SqliteConnection,
        range: &Range<i64>,
        step: i64,
    ) -> Result<bool, StoreError> {
        let mut query = self.rows(range, step);
        let mut rows = query.build().fetch(connection);
        while let Some(row) = rows.try_next().await? {
            if self.rows.len() == self.filter.limit || self.bytes >= MAX_PAGE_BYTES {
                return Ok(true);
            }
            self.bytes += ROW_BYTES + columns::text_bytes(&row)?;
            self.position = columns::seq(&row)?;
            self.rows.push(row);
        }
        Ok(false)
    }

    fn into_page(self) -> Result<TaskPage, StoreError> {
        let records = self.rows.iter().map(columns::read).collect::<Result<_, _>>()?;
        Ok(TaskPage { records, next: self.next })
    }

    /// Last candidate of a statement; `None` if there were fewer, or if every candidate is a match.
    async fn last(
        &self,
        connection: &mut SqliteConnection,
        range: &Range<i64>,
        step: i64,
    ) -> Result<Option<i64>, StoreError> {
        if !self.checks() {
            return Ok(None);
        }
        let mut query = QueryBuilder::new("");
        self.push_candidates(&mut query, range);
        query.push(" LIMIT 1 OFFSET ").push_bind(step - 1);
        Ok(query.build_query_scalar().fetch_optional(connection).await?)
    }

    /// Whether rows are checked, so that not every candidate is a match.
    fn checks(&self) -> bool {
        let filter = self.filter;
        let names = !filter.statuses.is_empty() || !filter.task_types.is_empty();
        let times = filter.created_after.is_some() || filter.created_before.is_some();
        times
            || filter.retried.is_some()
            || match self.source {
                Source::Table => names,
                Source::Types(_) => !filter.tags.is_empty(),
                Source::Tag(_) => names || filter.tags.len() > 1,
            }
    }

    /// Statement for the matches among the next candidates, in the order of the candidates: an ORDER BY
    /// would make SQLite sort whole rows before it returns the first.
    fn rows(&self, range: &Range<i64>, step: i64) -> QueryBuilder<Sqlite> {
        let filter = self.filter;
        if matches!(self.source, Source::Table) && !self.checks() {
            // Every candidate is a match, and its row is at hand.
            let mut query = QueryBuilder::new(concat!("SELECT ", columns!(), " FROM tasks"));
            query.push(" WHERE true");
            push_range(&mut query, "seq", range);
            query.push(" ORDER BY seq DESC LIMIT ").push_bind(step);
            return query;
        }
        let mut query = QueryBuilder::new(concat!("SELECT ", columns!(), " FROM ("));
        self.push_candidates(&mut query, range);
        query.push(" LIMIT ").push_bind(step);
        query.push(") AS candidate CROSS JOIN tasks ON tasks.seq = candidate.at WHERE true");
        if !matches!(self.source, Source::Types(_)) {
            push_names(&mut query, "status", filter.statuses.iter().map(|status| status.name()));
            push_names(&mut query, "task_type", filter.task_types.iter().map(|name| name.name()));
        }
        for tag in &filter.tags {
            if !matches!(self.source, Source::Tag(walked) if walked == tag) {
                push_tag(&mut query, tag);
            }
        }
        if let Some(after) = filter.created_after {
            query.push(" AND created_at >= ").push_bind(after.as_micros());
        }
        if let Some(before) = filter.created_before {
            query.push(" AND created_at < ").push_bind(before.as_micros());
        }
        match filter.retried {
            Some(true) => query.push(" AND retried_by IS NOT NULL"),
            Some(false) => query.push(" AND retried_by IS NULL"),
            None => &mut query,
        };
        query.push(" LIMIT ").push_bind(self.wanted() as i64);
        query
    }

    /// Adds the candidates in a range, newest first. SQLite merges several walks as it reads them.
    fn push_candidates(&self, query: &mut QueryBuilder<Sqlite>, range: &Range<i64>) {
        match &self.source {
            Source::Table => {
                query.push("SELECT seq AS at FROM tasks WHERE true");
                push_range(query, "seq", range);
            }
            Source::Types(walks) => {
                for (number, (name, status)) in walks.iter().enumerate() {
                    query.push(if number == 0 { "" } else { " UNION ALL " });
                    query.push("SELECT seq AS at FROM tasks WHERE task_type = ");
                    query.push_bind((*name).to_owned());
                    query.push(" AND status = ").push_bind(status.name());
                    push_range(query, "seq", range);
                }
            }
            Source::Tag((key, value)) => {
                query.push("SELECT task_seq AS at FROM task_tags WHERE key = ");
                query.push_bind(key.clone()).push(" AND value = ").push_bind(value.clone());
                push_range(query, "task_seq", range);
            }
        }
        query.push(" ORDER BY at DESC");
    }
}

impl<'f> Source<'f> {
    fn new(filter: &'f ListFilter, types: &'f [String], counts: &Counts) -> Self {
        if let Some(tag) = filter.tags.first()
            && !are_few(counts, &filter.statuses)
        {
            return Self::Tag(tag);
        }
        if filter.statuses.is_empty() && filter.task_types.is_empty() {
            return Self::Table;
        }
        let types: Vec<&str> = match filter.task_types.is_empty() {
            true => types.iter().map(String::as_str).collect(),
            false => filter.task_types.iter().map(|task_type| task_type.name()).collect(),
        };
        let statuses = match filter.statuses.is_empty() {
            true => TaskStatus::ALL,
            false => &filter.statuses,
        };
        if types.len() * statuses.len() > MAX_WALKS {
            return filter.tags.first().map_or(Self::Table, Self::Tag);
        }
        let walks =
            types.iter().flat_map(|&name| statuses.iter().map(move |&status| (name, status)));
        Self::Types(walks.collect())
    }
}

/// Adds the condition that a column is in a range.
fn push_range(query: &mut QueryBuilder<Sqlite>, column: &str, range: &Range<i64>) {
    query.push(" AND ").push(column).push(" >= ").push_bind(range.start);
    query.push(" AND ").push(column).push(" < ").push_bind(range.end);
}

/// Adds the condition that a task has a tag.
fn push_tag(query: &mut QueryBuilder<Sqlite>, (key, value): &(String, String)) {
    query.push(" AND EXISTS (SELECT 1 FROM task_tags AS tag WHERE tag.key = ");
    query.push_bind(key.clone()).push(" AND tag.value = ").push_bind(value.clone());
    query.push(" AND tag.task_seq = candidate.at)");
}

/// Adds the condition that a column has one of these values, if any. The plus rules out its index.
fn push_names(
    query: &mut QueryBuilder<Sqlite>,
    column: &str,
    names: impl ExactSizeIterator<Item = &'static str>,
) {
    if names.len() == 0 {
        return;
    }
    query.push(" AND +").push(column).push(" IN (");
    let mut list = query.separated(", ");
    for name in names {
        list.push_bind(name);
    }
    query.push(")");
}

#[cfg(test)]
mod tests;
