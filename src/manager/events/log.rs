//! The bounded log of the latest events, and the streams that wait for more.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::event::{Event, EventKind, Interest};
use crate::manager::attempt::Stamp;
use crate::task::{TaskId, TaskInfo, TaskStatus};

/// Time for which logging continues after the last stream ends, for clients that reconnect.
const LINGER: Duration = Duration::from_secs(120);
/// Maximum number of events in the log.
const MAX_EVENTS: usize = 10_000;
/// Maximum size of the log.
const MAX_BYTES: usize = 8 << 20;

/// The log. The fold and the progress ticker append to it; each stream reads it from its own cursor, the
/// number of the last event it has seen. A stream that has read everything parks, and the next event for
/// it wakes it. The lock guards events and parked streams together, so that no event falls between the
/// last read and the parking.
#[derive(Debug)]
pub(super) struct Log(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// Number of the latest event.
    latest: u64,
    /// The latest events, without gaps.
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Parked streams of single tasks. Each is sent the cursor to continue from.
    of_task: HashMap<TaskId, Vec<oneshot::Sender<u64>>>,
    /// Parked streams of many tasks. Every event wakes them, and they apply their filter.
    of_many: Vec<oneshot::Sender<u64>>,
    /// Whether events are logged.
    logging: bool,
    /// Last time a stream was open.
    used: Instant,
    closed: bool,
}

/// Result of a read.
pub(super) enum Read {
    Event(Arc<Event>),
    /// Everything was read. Resolves with the cursor to continue from, or fails if the stream is over.
    Parked(oneshot::Receiver<u64>),
    /// Events after the cursor are gone, or the log is closed.
    Over,
}

impl Log {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner {
            latest: 0,
            events: VecDeque::new(),
            bytes: 0,
            of_task: HashMap::new(),
            of_many: Vec::new(),
            logging: false,
            used: Instant::now(),
            closed: false,
        }))
    }

    pub(super) fn is_logging(&self) -> bool {
        self.0.lock().logging
    }

    /// Starts logging. Returns the number of the latest event.
    pub(super) fn begin(&self) -> u64 {
        let mut inner = self.0.lock();
        inner.logging = true;
        inner.used = Instant::now();
        inner.latest
    }

    /// Whether the log still holds everything after this cursor.
    pub(super) fn reaches(&self, cursor: u64) -> bool {
        let inner = self.0.lock();
        (inner.latest - inner.events.len() as u64..=inner.latest).contains(&cursor)
    }

    /// Whether the log holds the end of a task after this cursor.
    pub(super) fn has_end(&self, id: TaskId, cursor: u64) -> bool {
        let inner = self.0.lock();
        let mut events = inner.after(cursor);
        events.any(|event| event.info.task_id == id && event.info.status.is_final())
    }

    pub(super) fn append(
        &self,
        kind: EventKind,
        from: Option<TaskStatus>,
        stamp: Stamp,
        info: TaskInfo,
    ) {
        let mut inner = self.0.lock();
        let before = inner.latest;
        inner.latest += 1;
        let event = Arc::new(Event::new(inner.latest, kind, from, stamp, info));
        let readers = inner.of_task.remove(&event.info.task_id).unwrap_or_default();
        for reader in readers.into_iter().chain(std::mem::take(&mut inner.of_many)) {
            // The client may have disconnected.
            let _ = reader.send(before);
        }
        inner.bytes += event.size();
        inner.events.push_back(event);
        while (inner.events.len() > MAX_EVENTS || inner.bytes > MAX_BYTES)
            && let Some(oldest) = inner.events.pop_front()
        {
            inner.bytes -= oldest.size();
        }
    }

    /// Reads the next event of this interest, and advances the cursor.
    pub(super) fn read(&self, interest: &Interest, cursor: &mut u64) -> Read {
        let mut inner = self.0.lock();
        if inner.latest - *cursor > inner.events.len() as u64 {
            return Read::Over;
        }
        if let Some(event) = inner.after(*cursor).find(|event| interest.covers(event)) {
            *cursor = event.number;
            return Read::Event(Arc::clone(event));
        }
        *cursor = inner.latest;
        if inner.closed {
            return Read::Over;
        }
        let (wake, woken) = oneshot::channel();
        match interest {
            Interest::Task(id) => inner.of_task.entry(*id).or_default().push(wake),
            Interest::Matching(_) => inner.of_many.push(wake),
        }
        Read::Parked(woken)
    }

    /// Drops parked streams whose clients have gone. Stops logging [`LINGER`] after the last stream.
    pub(super) fn tidy(&self, streams: usize) {
        let mut inner = self.0.lock();
        inner.of_task.retain(|_, readers| {
            readers.retain(|reader| !reader.is_closed());
            !readers.is_empty()
        });
        inner.of_many.retain(|reader| !reader.is_closed());
        if streams > 0 {
            inner.used = Instant::now();
        } else if inner.used.elapsed() > LINGER {
            inner.logging = false;
            inner.events.clear();
            inner.bytes = 0;
            // Invalidates all cursors.
            inner.latest += 1;
        }
    }

    /// Ends all streams once they have read everything.
    pub(super) fn close(&self) {
        let mut inner = self.0.lock();
        inner.closed = true;
        inner.of_task.clear();
        inner.of_many.clear();
    }
}

impl Inner {
    fn after(&self, cursor: u64) -> impl Iterator<Item = &Arc<Event>> {
        let unread = usize::try_from(self.latest - cursor).unwrap_or(usize::MAX);
        self.events.range(self.events.len().saturating_sub(unread)..)
    }
}
