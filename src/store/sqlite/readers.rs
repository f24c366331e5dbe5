//! Connections for reads. They never wait for the writer.
//!
//! Point reads, whose cost does not depend on the number of tasks, have their own connections. Scans,
//! which walk an index, have others: the number of scans, the duration of each and the queue for them
//! are bounded. So no number of lists delays a probe or a poll.

use std::num::NonZero;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Connection, SqliteConnection, SqlitePool};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};

use crate::store::error::StoreError;

/// Connections for point reads.
const POINT_READERS: u32 = 3;
/// Limits on concurrent scans, one per core in between: more would only take turns.
const SCANNERS: RangeInclusive<usize> = 2..=4;
/// Maximum number of waiting scans; more are refused.
const MAX_WAITING: usize = 64;
/// Time limit of a scan, from the request to the last row. A page takes a few milliseconds.
const SCAN_TIME: Duration = Duration::from_secs(2);
/// Maximum wait of a point read for a connection.
const POINT_WAIT: Duration = Duration::from_secs(5);
/// Virtual machine steps of SQLite between two checks of the time: a few microseconds.
const STEPS: i32 = 1000;
/// Number of rows read ahead; a row may exceed a megabyte. Holds a default page: once SQLite's thread
/// has to wait for its reader, each row costs two thread switches.
const ROWS_AHEAD: usize = 104;

/// All connections for reads.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    points: SqlitePool,
    scans: Arc<Scans>,
}

/// Scheduling of scans. A scan holds a permit of `queue` while it waits and runs, and one of `turns`
/// while it has a scanner out of `idle`, so a turn guarantees an idle scanner.
#[derive(Debug)]
struct Scans {
    queue: Arc<Semaphore>,
    scanners: usize,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Scanner>>,
    brakes: Vec<Arc<Brake>>,
}

/// A connection for scans.
#[derive(Debug)]
struct Scanner {
    connection: SqliteConnection,
    brake: Arc<Brake>,
}

/// Interrupts the statements of one scanner after their time limit. Written by the scan and by
/// `close`, read by SQLite's progress handler on the connection's thread.
#[derive(Debug)]
struct Brake {
    opened: Instant,
    /// Deadline, in microseconds since `opened`.
    until: AtomicU64,
}

impl Brake {
    fn release_until(&self, end: Instant) {
        let micros = end.saturating_duration_since(self.opened).as_micros();
        self.until.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn pull(&self) {
        self.until.store(0, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        self.opened.elapsed().as_micros() < u128::from(self.until.load(Ordering::Relaxed))
    }
}

impl Readers {
    /// Opens all connections now, so that no request fails later for lack of file descriptors.
    pub(super) async fn open(options: SqliteConnectOptions) -> sqlx::Result<Self> {
        let points = SqlitePoolOptions::new()
            .max_connections(POINT_READERS)
            .min_connections(POINT_READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(POINT_WAIT)
            .test_before_acquire(false)
            .connect_with(options.clone())
            .await?;
        let options = options.row_buffer_size(ROWS_AHEAD);
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let scanners = cores.clamp(*SCANNERS.start(), *SCANNERS.end());
        let mut idle = Vec::with_capacity(scanners);
        for _ in 0..scanners {
            idle.push(Scanner::open(&options).await?);
        }
        let scans = Scans {
            queue: Arc::new(Semaphore::new(scanners + MAX_WAITING)),
            scanners,
            turns: Arc::new(Semaphore::new(scanners)),
            brakes: idle.iter().map(|scanner| Arc::clone(&scanner.brake)).collect(),
            idle: Mutex::new(idle),
        };
        Ok(Self { points, scans: Arc::new(scans) })
    }

    /// Connections for statements whose cost does not depend on the number of tasks.
    pub(super) fn points(&self) -> &SqlitePool {
        &self.points
    }

    /// Waits for the turn of a scan.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] if too many scans wait, or if the wait takes too long.
    pub(super) async fn scan(&self) -> Result<Scan, StoreError> {
        let scans = &self.scans;
        let end = Instant::now() + SCAN_TIME;
        let queued = Arc::clone(&scans.queue).try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => StoreError::Overloaded,
            TryAcquireError::Closed => StoreError::Closed,
        })?;
        let turn = timeout_at(end, Arc::clone(&scans.turns).acquire_owned()).await;
        let closed = |_: AcquireError| StoreError::Closed;
        let turn = turn.map_err(|_| StoreError::Overloaded)?.map_err(closed)?;
        let scanner = scans.idle.lock().pop().expect("a turn guarantees an idle scanner");
        scanner.brake.release_until(end);
        let permits = Some([queued, turn]);
        let scan = Scan { scanner: Some(scanner), scans: Arc::clone(scans), permits };
        // Checked after the release: `close` closes the queue before it pulls the brakes.
        if scans.queue.is_closed() { Err(StoreError::Closed) } else { Ok(scan) }
    }

    /// Interrupts current scans and closes all connections.
    pub(super) async fn close(&self) {
        let scans = &self.scans;
        scans.queue.close();
        scans.brakes.iter().for_each(|brake| brake.pull());
        self.points.close().await;
        // Holding all turns means that all scanners are idle.
        if let Ok(_all) = scans.turns.acquire_many(scans.scanners as u32).await {
            scans.turns.close();
            let idle = std::mem::take(&mut *scans.idle.lock());
            for scanner in idle {
                let _ = scanner.connection.close().await;
            }
        }
    }
}

impl Scanner {
    async fn open(options: &SqliteConnectOptions) -> sqlx::Result<Self> {
        let mut connection = SqliteConnection::connect_with(options).await?;
        let brake = Arc::new(Brake { opened: Instant::now(), until: AtomicU64::new(0) });
        let handler = Arc::clone(&brake);
        connection.lock_handle().await?.set_progress_handler(STEPS, move || handler.goes_on());
        Ok(Self { connection, brake })
    }
}

/// A running scan. Dropping it before it finishes, because its client has gone, interrupts it.
#[derive(Debug)]
pub(super) struct Scan {
    scanner: Option<Scanner>,
    scans: Arc<Scans>,
    permits: Option<[OwnedSemaphorePermit; 2]>,
}

impl Scan {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        let scanner = self.scanner.as_mut().expect("a scan owns its scanner until it ends");
        &mut scanner.connection
    }

    /// Returns the scanner, whose last statement has ended.
    pub(super) fn finish(mut self) {
        self.scans.idle.lock().extend(self.scanner.take());
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        let Some(mut scanner) = self.scanner.take() else { return };
        scanner.brake.pull();
        let (scans, permits) = (Arc::clone(&self.scans), self.permits.take());
        tokio::spawn(async move {
            // Resolves when the interrupted statement has ended.
            let _ = scanner.connection.ping().await;
            scans.idle.lock().push(scanner);
            drop(permits);
        });
    }
}
