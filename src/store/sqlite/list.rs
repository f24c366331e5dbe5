//! Lists: pages of tasks, newest first, each at a bounded cost.
//!
//! A page walks candidates in descending order of `seq`: along the index of types, the index of tags or
//! the table itself. What the walk cannot promise (a time, another tag, a retry) is checked on the row of each
//! candidate. A page ends when it is full, when it holds [`MAX_PAGE_BYTES`], when it has looked at
//! [`MAX_EXAMINED`] candidates, or when its time is over; the next page goes on from there.

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

/// Most candidates that one page looks at: a few tens of milliseconds.
const MAX_EXAMINED: i64 = 20_000;
/// What a row takes beside its texts.
const ROW_BYTES: usize = 512;
/// Candidates of the first statement of a page whose rows are checked; later ones look at more.
const FIRST_STEP: i64 = 256;
/// Most combinations of type and status that are walked side by side. SQLite allows 500.
const MAX_WALKS: usize = 64;

impl ReadHalf {
    pub(in crate::store) async fn list(
        &self,
        filter: &ListFilter,
        counts: &Counts,
    ) -> Result<TaskPage, StoreError> {
        if filter.retried.is_some() {
            self.check_retries_known()?;
        }
        let ranges = self.times.ranges(filter);
        let mut scan = self.readers.scan().await?;
        let mut walk = Walk::new(filter, &self.types, counts);
        walk.run(scan.connection(), &ranges).await?;
        // The next scan need not wait until these rows are decoded.
        scan.finish();
        walk.into_page()
    }

    pub(in crate::store) async fn newest_pending(&self) -> Result<Option<TaskRecord>, StoreError> {
        let newest =
            ListFilter { statuses: vec![TaskStatus::Pending], limit: 1, ..ListFilter::default() };
        let walk = Walk::new(&newest, &self.types, &Counts::default());
        let row =
            walk.rows(&(0..i64::MAX), 1).build().fetch_optional(self.readers.points()).await?;
        Ok(row.as_ref().map(columns::read).transpose()?)
    }
}

/// Whether a page can look at all tasks with these statuses. Finished ones are many sooner or later.
fn are_few(counts: &Counts, statuses: &[TaskStatus]) -> bool {
    let tasks: u64 = statuses.iter().map(|&status| counts.get(status)).sum();
    let unfinished = !statuses.iter().any(|status| status.is_final());
    unfinished && !statuses.is_empty() && tasks <= MAX_EXAMINED.unsigned_abs()
}

/// What leads to the candidates.
enum Source<'f> {
    /// The order of submission.
    Table,
    /// The index of types, walked for each of these types and statuses.
    Types(Vec<(&'f str, TaskStatus)>),
    /// The index of tags.
    Tag(&'f (String, String)),
}

/// One page on its way.
struct Walk<'f> {
    filter: &'f ListFilter,
    source: Source<'f>,
    /// Tasks of the page. Decoded when all are there, because SQLite's thread waits for a reader that stops at
    /// each row.
    rows: Vec<SqliteRow>,
    bytes: usize,
    /// All candidates from this `seq` on have been looked at.
    position: i64,
    examined: i64,
    /// Start of the next page.
    next: Option<Cursor>,
}

/// How a statement ended.
#[derive(PartialEq, Eq)]
enum Step {
    /// The page is complete.
    Full,
    /// It has all that its candidates gave.
    Exhausted,
}

impl<'f> Walk<'f> {
    fn new(filter: &'f ListFilter, types: &'f [String], counts: &Counts) -> Self {
        let position = filter.cursor.map_or(i64::MAX, |cursor| cursor.seq);
        let source = Source::new(filter, types, counts);
        Self { filter, source, rows: Vec::new(), bytes: 0, position, examined: 0, next: None }
    }

    /// Fills the page.
    async fn run(
        &mut self,
        connection: &mut SqliteConnection,
        ranges: &[Range<i64>],
    ) -> Result<(), StoreError> {
        let begin = self.position;
        let cut = match self.try_run(connection, ranges).await {
            Ok(cut) => cut,
            // Its time is over. The next page goes on from here.
            Err(StoreError::Overloaded) if self.position < begin => true,
            Err(error) => return Err(error),
        };
        self.next = cut.then_some(Cursor { seq: self.position });
        Ok(())
    }

    /// Returns whether there may be more.
    async fn try_run(
        &mut self,
        connection: &mut SqliteConnection,
        ranges: &[Range<i64>],
    ) -> Result<bool, StoreError> {
        for range in ranges {
            let mut range = range.clone();
            loop {
                let step = self.step();
                if self.fill(connection, &range, step).await? == Step::Full {
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

    /// Candidates of the next statement.
    fn step(&self) -> i64 {
        let wanted = self.wanted() as i64;
        match self.checks() {
            true => {
                (3 * self.examined).max(FIRST_STEP).max(wanted).min(MAX_EXAMINED - self.examined)
            }
            false => wanted,
        }
    }

    /// Tasks that the page still takes. One more than fits tells that there is another page.
    fn wanted(&self) -> usize {
        self.filter.limit + 1 - self.rows.len()
    }

    async fn fill(
        &mut self,
        connection: &mut SqliteConnection,
        range: &Range<i64>,
        step: i64,
    ) -> Result<Step, StoreError> {
        let mut query = self.rows(range, step);
        let mut rows = query.build().fetch(connection);
        while let Some(row) = rows.try_next().await? {
            if self.rows.len() == self.filter.limit || self.bytes >= MAX_PAGE_BYTES {
                return Ok(Step::Full);
            }
            self.bytes += ROW_BYTES + columns::text_bytes(&row)?;
            self.position = columns::seq(&row)?;
            self.rows.push(row);
        }
        Ok(Step::Exhausted)
    }

    fn into_page(self) -> Result<TaskPage, StoreError> {
        let records = self.rows.iter().map(columns::read).collect::<Result<_, _>>()?;
        Ok(TaskPage { records, next: self.next })
    }

    /// The last of the candidates of a statement; `None` if there were fewer, or if each was taken.
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

    /// Whether rows are checked, so that not each candidate belongs to the list.
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

    /// The statement for the tasks among the next candidates. They come in the order of the candidates: an
    /// ORDER BY would have SQLite sort whole rows before it hands over the first.
    fn rows(&self, range: &Range<i64>, step: i64) -> QueryBuilder<Sqlite> {
        let filter = self.filter;
        if matches!(self.source, Source::Table) && !self.checks() {
            // Each candidate is a task of the page, and at hand.
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

    /// The candidates in a range, newest first. Several walks are merged as they are read.
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
                query
                    .push("SELECT task_seq AS at FROM task_tags WHERE key = ")
                    .push_bind(key.clone());
                query.push(" AND value = ").push_bind(value.clone());
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

/// That a column is in a range.
fn push_range(query: &mut QueryBuilder<Sqlite>, column: &str, range: &Range<i64>) {
    query.push(" AND ").push(column).push(" >= ").push_bind(range.start);
    query.push(" AND ").push(column).push(" < ").push_bind(range.end);
}

/// That a task has a tag.
fn push_tag(query: &mut QueryBuilder<Sqlite>, (key, value): &(String, String)) {
    query.push(" AND EXISTS (SELECT 1 FROM task_tags AS tag WHERE tag.key = ");
    query.push_bind(key.clone()).push(" AND tag.value = ").push_bind(value.clone());
    query.push(" AND tag.task_seq = candidate.at)");
}

/// That a column has one of these values, if there are any. The plus keeps its index out of it.
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
