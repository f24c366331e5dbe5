//! Databases like those of a server that has run for months.

use std::fs::{self, File};
use std::time::Instant;

use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::client;
use crate::common::server::{Server, folder};

/// Default path of the database, relative to the server's working directory.
const DATABASE: &str = "tasks.db";
/// Submission time of the first task, and time between tasks, in milliseconds.
const BEGIN: u64 = 1_735_689_600_000;
const STEP: u64 = 30_000;

/// Distribution of types, statuses and tags over the tasks of a history. SQL of task number `n` of
/// `?1`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mixed {
    /// By the digits of the number, so that each combination has its share of any thousand rows.
    Evenly,
    /// Rare values are far from each other: failures are in the oldest third, images among the
    /// newest, and a few pending tasks everywhere. All tasks have a tag, and a few of them a
    /// different value of it.
    Adverse,
}

impl Mixed {
    fn task_type(self) -> &'static str {
        match self {
            Self::Evenly => {
                "CASE WHEN n % 10 < 4 THEN 'dummy_short' WHEN n % 10 < 8 THEN 'tokenize' \
                      ELSE 'image_process' END"
            }
            Self::Adverse => {
                "CASE WHEN n > ?1 / 3 * 2 AND n % 1000 = 1 THEN 'image_process' \
                      WHEN n % 10 < 4 THEN 'tokenize' ELSE 'dummy_short' END"
            }
        }
    }

    fn status(self) -> &'static str {
        match self {
            Self::Evenly => {
                "CASE n / 10 % 5 WHEN 3 THEN 'failed' WHEN 4 THEN 'cancelled' \
                                 ELSE 'completed' END"
            }
            Self::Adverse => {
                "CASE WHEN n < ?1 / 3 AND n % 1000 = 2 THEN 'failed' \
                      WHEN n % 10000 = 3 THEN 'pending' \
                      WHEN n % 20 = 4 THEN 'cancelled' ELSE 'completed' END"
            }
        }
    }

    fn tags(self) -> &'static str {
        match self {
            Self::Evenly => "iif(n % 2, '{}', json_object('plate', '' || n / 2 % 4))",
            Self::Adverse => {
                "json_object('project', \
                             iif(n BETWEEN ?1 / 3 AND ?1 / 2 AND n % 1000 = 5, 'rare', 'a'))"
            }
        }
    }
}

const FINISHED: &str = "
    WITH RECURSIVE
        numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?1),
        tasks_of (n, ms, task_type, status) AS (
            SELECT n, ?2 + n * ?3,
                   {task_type},
                   {status}
            FROM numbers)
    INSERT INTO tasks (id, task_type, status, priority, max_attempts, attempt, epoch,
                       parameters, tags, input_file_path, output_file_path,
                       progress, message, error, result,
                       created_at, started_at, completed_at, updated_at, due_at, run_at)
    SELECT printf('%08x-%04x-7%03x-8%03x-%012x', ms >> 16, ms & 65535, n & 4095,
                  n >> 12 & 4095, n * 2654435761 & 281474976710655),
           task_type, status, 0, 1, 1, 1,
           CASE task_type
               WHEN 'dummy_short' THEN '{\"duration\":5,\"steps\":5}'
               WHEN 'tokenize'
               THEN '{\"encoding\":\"cl100k_base\",\"sleep_duration\":0,\"special_tokens\":\"text\"}'
               ELSE '{\"width\":800,\"height\":600,\"format\":\"JPEG\",\"quality\":85}' END,
           {tags},
           iif(task_type = 'dummy_short', NULL, printf('plates/in/%07d', n)),
           iif(task_type = 'dummy_short', NULL, printf('plates/out/%07d', n)),
           iif(status = 'completed', 100.0, 40.0),
           CASE status WHEN 'completed' THEN 'Task completed successfully'
                       WHEN 'cancelled' THEN 'Task cancelled by user'
                       ELSE 'Task failed: the input ended too early' END,
           iif(status = 'failed', 'the input ended too early', NULL),
           iif(status = 'completed',
               json_object('message', 'done', 'input_file', printf('plates/in/%07d', n),
                           'char_count', n * 37 % 100000, 'token_count', n * 11 % 30000),
               NULL),
           ms * 1000, iif(status = 'pending', NULL, ms * 1000 + 700),
           iif(status = 'pending', NULL, ms * 1000 + 5000700), ms * 1000 + 5000700,
           iif(status = 'pending', {later}, NULL), iif(status = 'pending', {later}, NULL)
    FROM tasks_of";

const TAGS: &str = "INSERT INTO task_tags (key, value, task_seq) \
     SELECT tag.key AS key, tag.value AS value, seq FROM tasks, json_each(tags) AS tag \
     ORDER BY key, value, seq";

/// A `run_at` in the year 2100, in microseconds: these tasks stay pending.
const LATER: &str = "4102444800000000";

const PENDING: &str = "
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
    INSERT INTO tasks (id, task_type, status, priority, max_attempts, parameters, tags,
                       created_at, updated_at)
    SELECT printf('ffffffff-ffff-7fff-8fff-%012x', n), 'dummy_short', 'pending', 0, 1,
           '{\"duration\":3600,\"steps\":1}', '{}', ?2 * 1000 + n, ?2 * 1000 + n
    FROM numbers";

/// A database with this many finished tasks.
#[derive(Debug)]
pub(crate) struct History {
    folder: TempDir,
    finished: u64,
}

impl History {
    pub(crate) async fn make(finished: u64, mixed: Mixed) -> Self {
        // The server creates the schema. It handles signals by the time it responds.
        let server = Server::start(&[]);
        client::Connection::open(server.address()).await.get("/health/ready").await;
        let folder = server.stop();
        let mut connection = open(&folder).await;
        let mut transaction = connection.begin().await.unwrap();
        let insert = FINISHED
            .replace("{task_type}", mixed.task_type())
            .replace("{status}", mixed.status())
            .replace("{tags}", mixed.tags())
            .replace("{later}", LATER);
        // The parts of the statement are constants of this file.
        sqlx::query(AssertSqlSafe(insert))
            .bind(finished as i64)
            .bind(BEGIN as i64)
            .bind(STEP as i64)
            .execute(&mut *transaction)
            .await
            .unwrap();
        sqlx::query(TAGS).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        close(connection).await;
        Self { folder, finished }
    }

    pub(crate) fn finished(&self) -> u64 {
        self.finished
    }

    /// Copies the database into a new folder and syncs it, so that no writes are pending.
    pub(crate) fn copy(&self) -> TempDir {
        let copy = folder();
        let path = copy.path().join(DATABASE);
        fs::copy(self.folder.path().join(DATABASE), &path).unwrap();
        File::open(path).unwrap().sync_all().unwrap();
        copy
    }

    /// A copy with pending tasks that would sleep for an hour each.
    pub(crate) async fn copy_with_pending(&self, pending: u64) -> TempDir {
        let copy = self.copy();
        let mut connection = open(&copy).await;
        sqlx::query(PENDING)
            .bind(pending as i64)
            .bind(millisecond(self.finished) as i64)
            .execute(&mut connection)
            .await
            .unwrap();
        close(connection).await;
        copy
    }
}

/// A history of a million tasks, created on first use.
#[derive(Debug, Default)]
pub(crate) struct Million(OnceCell<History>);

impl Million {
    pub(crate) async fn get(&self) -> &History {
        let make = async || {
            let begin = Instant::now();
            let history = History::make(1_000_000, Mixed::Evenly).await;
            let bytes = fs::metadata(history.folder.path().join(DATABASE)).unwrap().len();
            let megabytes = bytes / 1_000_000;
            println!(
                "made 1,000,000 rows in {:.1} s, {megabytes} MB",
                begin.elapsed().as_secs_f64()
            );
            history
        };
        self.0.get_or_init(make).await
    }
}

/// Id of a task by its number.
pub(crate) fn id(number: u64) -> String {
    let ms = millisecond(number);
    let node = (number * 2_654_435_761) & 0xffff_ffff_ffff;
    format!(
        "{:08x}-{:04x}-7{:03x}-8{:03x}-{node:012x}",
        ms >> 16,
        ms & 0xffff,
        number & 0xfff,
        number >> 12 & 0xfff
    )
}

/// Submission time of a task by its number, in milliseconds since 1970.
pub(crate) fn millisecond(number: u64) -> u64 {
    BEGIN + number * STEP
}

async fn open(folder: &TempDir) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join(DATABASE))
        .synchronous(SqliteSynchronous::Off)
        .pragma("cache_size", "-500000");
    SqliteConnection::connect_with(&options).await.unwrap()
}

async fn close(mut connection: SqliteConnection) {
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
