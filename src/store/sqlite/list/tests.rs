//! Lists over a history that is longer than one page looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};
use tempfile::TempDir;

use super::*;
use crate::store::sqlite::schema::{MIGRATIONS, migrate};
use crate::store::sqlite::times::BLOCK;
use crate::store::testing::Started;
use crate::task::{TaskType, Timestamp};

/// More than one page looks at.
const ROWS: i64 = 50_000;
/// Of the clock, which jumps back a little all the time and a long way once, in microseconds.
const TIME: &str = "1000000 + seq * 10 - (seq % 7) * 1000 - iif(seq / 9000 = 2, 400000, 0)";

/// Store with many tasks, and a connection that counts the steps of SQLite's virtual machine.
struct History {
    started: Started,
    connection: SqliteConnection,
    steps: Arc<AtomicU64>,
    /// Newest first, with their tags.
    tasks: Vec<(TaskRecord, Value)>,
    _folder: TempDir,
}

impl History {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tasks.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        migrate(&path, &mut connection, MIGRATIONS).await.unwrap();
        let insert = format!(
            "PRAGMA synchronous = OFF; BEGIN;
             WITH RECURSIVE number (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM number LIMIT {ROWS})
             INSERT INTO tasks (seq, id, task_type, status, priority, parameters, tags, max_attempts, \
                                created_at, updated_at)
             SELECT seq, format('00000000-0000-7000-8000-%012x', seq), \
                    CASE seq % 4 WHEN 0 THEN 'tokenize' WHEN 1 THEN 'unknown' ELSE 'dummy_short' END, \
                    CASE WHEN seq % 5 = 0 THEN 'failed' WHEN seq % 999 = 0 THEN 'pending' \
                         WHEN seq < 30000 THEN 'completed' ELSE 'cancelled' END, \
                    0, '{{}}', \
                    iif(seq % 2 = 0, json_object('even', 'yes', 'hundred', \
                                                 CAST(seq / 100 AS TEXT)), '{{}}'), \
                    1, {TIME}, 0
             FROM number;
             INSERT INTO task_tags (key, value, task_seq) \
             SELECT tag.key, tag.value, seq FROM tasks, json_each(tags) AS tag; COMMIT"
        );
        sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut connection).await.unwrap();
        let select = concat!("SELECT ", columns!(), " FROM tasks ORDER BY seq DESC");
        let rows = sqlx::query(select).fetch_all(&mut connection).await.unwrap();
        let read = |row| {
            let record = columns::read(row).unwrap();
            let tags = serde_json::from_str(record.info.tags.get()).unwrap();
            (record, tags)
        };
        let tasks = rows.iter().map(read).collect();
        let steps = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        connection.lock_handle().await.unwrap().set_progress_handler(100, move || {
            counted.fetch_add(100, Ordering::Relaxed);
            true
        });
        let started = Started::open(&path, 0).await;
        Self { started, connection, steps, tasks, _folder: folder }
    }

    /// Has the times of all full blocks recorded.
    async fn record_times(&self) {
        tokio::spawn(self.started.store.clone().upkeep(None));
        while self.started.reads().times.gap(0, ROWS / BLOCK).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Follows the pages; returns the `seq` of all tasks, and the most steps that a page took.
    async fn follow(&mut self, filter: &ListFilter) -> (Vec<i64>, u64) {
        let (mut found, mut most) = (Vec::new(), 0);
        let mut filter = filter.clone();
        loop {
            self.steps.store(0, Ordering::Relaxed);
            let ranges = self.started.reads().times.ranges(&filter);
            let types = &self.started.reads().types.listed();
            let mut walk = Walk::new(&filter, types, self.started.store.reads.counts());
            walk.run(&mut self.connection, &ranges).await.unwrap();
            most = most.max(self.steps.load(Ordering::Relaxed));
            let page = walk.into_page().unwrap();
            assert!(page.records.len() <= filter.limit);
            found.extend(page.records.iter().map(|record| record.seq));
            match page.next {
                Some(next) => filter.cursor = Some(next),
                None => return (found, most),
            }
        }
    }

    fn expected(&self, filter: &ListFilter) -> Vec<i64> {
        let wanted = self.tasks.iter().filter(|(record, tags)| {
            filter.matches(&record.info, record.info.status)
                && filter.tags.iter().all(|(key, value)| tags[key] == value.as_str())
        });
        wanted.map(|(record, _)| record.seq).collect()
    }
}

/// Every combination of one choice from each group.
fn filters() -> Vec<ListFilter> {
    let time = |micros| Some(Timestamp::from_micros(micros));
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let tags = [
        vec![],
        vec![tag("even", "yes")],
        vec![tag("hundred", "41")],
        vec![tag("even", "yes"), tag("hundred", "123")],
    ];
    let statuses = [
        vec![],
        vec![TaskStatus::Pending],
        vec![TaskStatus::Completed],
        vec![TaskStatus::Failed, TaskStatus::Cancelled],
    ];
    let types = [vec![], vec![TaskType::Tokenize], vec![TaskType::DummyLong, TaskType::DummyShort]];
    let times = [
        (None, None),
        (time(0), None),
        (time(1_200_000), time(1_201_000)),
        (None, time(1_010_000)),
        (time(9_000_000), None),
    ];
    let mut filters = Vec::new();
    for tags in &tags {
        for statuses in &statuses {
            for task_types in &types {
                for &(created_after, created_before) in &times {
                    filters.push(ListFilter {
                        retried: None,
                        statuses: statuses.clone(),
                        task_types: task_types.clone(),
                        created_after,
                        created_before,
                        tags: tags.clone(),
                        cursor: None,
                        limit: 1000,
                    });
                }
            }
        }
    }
    filters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_make_up_the_list_at_a_bounded_cost() {
    /// A hundred for each candidate, which takes some tens of milliseconds.
    const MOST_STEPS: u64 = 100 * MAX_EXAMINED as u64;
    let mut history = History::new().await;
    // Without the record of times, which takes a moment after an upgrade, some of them.
    for (recorded, step) in [(false, 7), (true, 1)] {
        if recorded {
            history.record_times().await;
        }
        for filter in filters().into_iter().step_by(step) {
            let (found, steps) = history.follow(&filter).await;
            assert_eq!(found, history.expected(&filter), "{filter:?}");
            assert!(steps <= MOST_STEPS, "{steps} steps for a page of {filter:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_times_lead_to_the_tasks() {
    let mut history = History::new().await;
    history.record_times().await;
    let time = |micros| Some(Timestamp::from_micros(micros));
    let hour = ListFilter {
        created_after: time(1_200_000),
        created_before: time(1_201_000),
        limit: 100,
        ..ListFilter::default()
    };
    let (found, steps) = history.follow(&hour).await;
    assert_eq!(found, history.expected(&hour));
    // A few blocks, and not the 30,000 tasks that are newer.
    assert!(steps < 200_000, "{steps} steps");
}

#[tokio::test]
async fn no_list_sorts_rows_or_scans_the_table() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tasks.db");
    let started = Started::open(&path, 0).await;
    let reads = started.reads();
    for filter in filters() {
        let types = reads.types.listed();
        let walk = Walk::new(&filter, &types, started.store.reads.counts());
        let explain = format!("EXPLAIN QUERY PLAN {}", walk.rows(&(0..9), 9).sql().as_str());
        let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(reads.readers.points());
        let plan: Vec<String> = rows.await.unwrap().iter().map(|row| row.get("detail")).collect();
        let bad = |step: &&String| step.contains("TEMP B-TREE") || step.starts_with("SCAN tasks");
        assert_eq!(plan.iter().find(bad), None, "{filter:?}\n{plan:#?}");
    }
}

#[tokio::test]
async fn a_page_ends_when_it_holds_enough() {
    let mut history = History::new().await;
    let large = "UPDATE tasks SET result = json_object('text', printf('%.*c', 1000000, 'x')) \
                 WHERE seq > 49000";
    sqlx::query(large).execute(&mut history.connection).await.unwrap();
    let filter = ListFilter { limit: 100, ..ListFilter::default() };
    let page = history.started.store.reads.list(&filter).await.unwrap();
    let bytes: usize = page.records.iter().map(|record| ROW_BYTES + record.info.text_bytes()).sum();
    assert_eq!(page.records.len(), 5, "{bytes} bytes");
    assert_eq!(page.next.map(|next| next.seq), Some(ROWS - 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_without_a_client_makes_way() {
    let history = History::new().await;
    let endless = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number) \
                   SELECT count(*) FROM number";
    for _ in 0..10 {
        let mut scan = history.started.reads().readers.scan().await.unwrap();
        let query = sqlx::query(endless).fetch_one(scan.connection());
        let left = tokio::time::timeout(Duration::from_millis(10), query).await;
        assert!(left.is_err(), "it ends");
        drop(scan);
    }
    // Ended by their time, and those that wait for them by theirs.
    let mut scans = Vec::new();
    for _ in 0..100 {
        let readers = history.started.reads().readers.clone();
        scans.push(tokio::spawn(async move {
            let mut scan = readers.scan().await?;
            let ended = sqlx::query(endless).fetch_one(scan.connection()).await;
            Err::<(), _>(StoreError::from(ended.expect_err("it is endless")))
        }));
    }
    for scan in scans {
        let ended = scan.await.unwrap();
        assert!(matches!(ended, Err(StoreError::Overloaded)), "{ended:?}");
    }
    let one = ListFilter { limit: 1, ..ListFilter::default() };
    assert_eq!(history.started.store.reads.list(&one).await.unwrap().records.len(), 1);
    // Nor does one keep the store open.
    let mut scan = history.started.reads().readers.scan().await.unwrap();
    let running = tokio::spawn(async move {
        sqlx::query(endless).fetch_one(scan.connection()).await.map(drop).map_err(StoreError::from)
    });
    history.started.store.close().await;
    assert!(matches!(running.await.unwrap(), Err(StoreError::Overloaded)));
}
