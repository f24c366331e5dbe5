//! The reading end of an event stream.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{Event, EventId, EventKind, READER_BYTES};
use crate::manager::attempt::Stamp;
use crate::task::{TaskId, TaskInfo};

/// The reading end of a stream.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(super) run: u64,
    /// The latest event when the stream began.
    pub(super) now: u64,
    /// Whether the client may have missed something that cannot be told any more.
    pub(crate) gap: bool,
    /// Whether it goes on where it was.
    pub(super) resumed: bool,
    /// What it missed, as far as it was not told of it yet.
    pub(super) missed: VecDeque<Arc<Event>>,
    /// How things stood at the beginning, likewise.
    pub(super) present: VecDeque<Arc<Event>>,
    pub(super) events: mpsc::Receiver<Arc<Event>>,
    /// How many bytes of events wait.
    pub(super) queued: Arc<AtomicUsize>,
    /// How the tasks stood that the client is told of at the beginning.
    pub(super) seen: HashMap<TaskId, Stamp>,
    /// Its place among the streams, for as long as its connection is there.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

impl Subscription {
    /// Takes note of how things stand, newest first; what happened before is not told any more. Of
    /// more than a reader may let pile up, the newest are taken.
    pub(super) fn begin(&mut self, present: Vec<(Stamp, TaskInfo)>) {
        let mut bytes = 0;
        for (stamp, info) in present {
            let (kind, json) = (EventKind::State, OnceLock::new());
            let (number, tags) = (self.now, OnceLock::new());
            let event = Event { number, kind, from: None, stamp, info, json, tags };
            bytes += event.size();
            if bytes > READER_BYTES && !self.present.is_empty() {
                break;
            }
            self.seen.insert(event.info.task_id, stamp);
            self.present.push_front(Arc::new(event));
        }
    }

    /// The next event; `None` if the server is shutting down or this reader is too slow.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        if let Some(event) = self.missed.pop_front().or_else(|| self.present.pop_front()) {
            return Some(event);
        }
        loop {
            let event = self.events.recv().await?;
            self.queued.fetch_sub(event.size(), Ordering::Relaxed);
            let seen = self.seen.get(&event.info.task_id);
            if seen.is_some_and(|seen| event.stamp <= *seen) {
                continue;
            }
            self.seen.remove(&event.info.task_id);
            return Some(event);
        }
    }

    /// What to tell the client that it has seen with this event. Nothing yet while there is more to
    /// tell of how things stand: who is cut off before that is to begin anew.
    pub(crate) fn id(&self, event: &Event) -> Option<EventId> {
        let id = EventId { run: self.run, number: event.number };
        (self.present.is_empty() || event.number < self.now).then_some(id)
    }
}
