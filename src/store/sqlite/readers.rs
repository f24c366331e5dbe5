//! Connections that read. They never wait for the writer.
//!
//! Point reads, whose cost does not depend on the number of tasks, have connections of their own. So
//! have scans, which walk an index: their number is bounded, and so are the time of each and the queue
//! for them. However many lists are asked for, a probe or a poll waits for none of them.

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
/// Scans at once: one for each core, but at least so many and at most so many. More of them only take turns.
const SCANNERS: RangeInclusive<usize> = 2..=4;
/// Scans that may wait for their turn; more are refused.
const MAX_WAITING: usize = 64;
/// Longest time of a scan, from the request to the last row. A page takes a few milliseconds.
const SCAN_TIME: Duration = Duration::from_secs(2);
/// Longest wait for the connection of a point read.
const POINT_WAIT: Duration = Duration::from_secs(5);
/// Steps of SQLite's virtual machine between two looks at the time: a few microseconds.
const STEPS: i32 = 1000;
/// Rows that are read ahead. Each may have more than a megabyte. A page of the usual size fits: where SQLite's
/// thread has to wait for its reader, a row costs two switches of threads.
const ROWS_AHEAD: usize = 104;

/// All connections that read.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    points: SqlitePool,
    scans: Arc<Scans>,
}

#[derive(Debug)]
struct Scans {
    /// A permit for each scan that runs or waits.
    queue: Arc<Semaphore>,
    scanners: usize,
    /// A permit for each scanner in `idle`.
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Scanner>>,
    /// Of all scanners.
    brakes: Vec<Arc<Brake>>,
}

/// A connection for scans.
#[derive(Debug)]
struct Scanner {
    connection: SqliteConnection,
    brake: Arc<Brake>,
}

/// Interrupts the statements of one scanner when their time is over. Set by the scan, read by SQLite's
/// progress handler on the thread of the connection.
#[derive(Debug)]
struct Brake {
    opened: Instant,
    /// End of the time, in microseconds since `opened`.
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
    /// Opens all connections, so that later a lack of file descriptors harms no request.
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

    /// For statements whose cost does not depend on the number of tasks.
    pub(super) fn points(&self) -> &SqlitePool {
        &self.points
    }

    /// Waits for the turn of a scan.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] if too many wait, or if the wait takes too long.
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
        let scanner = scans.idle.lock().pop().expect("each permit stands for an idle scanner");
        scanner.brake.release_until(end);
        let permits = Some([queued, turn]);
        let scan = Scan { scanner: Some(scanner), scans: Arc::clone(scans), permits };
        // Checked after the release, because `close` pulls the brakes after it has closed the queue.
        if scans.queue.is_closed() { Err(StoreError::Closed) } else { Ok(scan) }
    }

    /// Ends the scans under way, and closes all connections.
    pub(super) async fn close(&self) {
        let scans = &self.scans;
        scans.queue.close();
        scans.brakes.iter().for_each(|brake| brake.pull());
        self.points.close().await;
        // All turns, so all scanners are back.
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

/// A scan under way. Dropped before it has finished, because its client went away, it is interrupted.
#[derive(Debug)]
pub(super) struct Scan {
    scanner: Option<Scanner>,
    scans: Arc<Scans>,
    permits: Option<[OwnedSemaphorePermit; 2]>,
}

impl Scan {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        let scanner = self.scanner.as_mut().expect("a scan has its scanner until it ends");
        &mut scanner.connection
    }

    /// Gives the connection back: its last statement has ended.
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
            // Answered when the statement before it has ended.
            let _ = scanner.connection.ping().await;
            scans.idle.lock().push(scanner);
            drop(permits);
        });
    }
}
