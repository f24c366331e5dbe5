//! The reading end of an event stream.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{Event, EventId, EventKind, Stamp};
use crate::task::{TaskId, TaskInfo};

/// The reading end of a stream.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(super) run: u64,
    /// The latest event when the stream began.
    pub(super) now: u64,
    /// Whether the client may have missed something that cannot be told any more.
    pub(crate) gap: bool,
    /// Whether there is nothing to tell, now or later.
    pub(crate) over: bool,
    /// What it missed otherwise.
    pub(super) missed: Option<VecDeque<Arc<Event>>>,
    /// How things stood at the beginning, as far as the client was not told of it yet.
    pub(super) present: VecDeque<Arc<Event>>,
    pub(super) events: mpsc::Receiver<Arc<Event>>,
    /// How many bytes of events wait.
    pub(super) queued: Arc<AtomicUsize>,
    /// How the tasks stood that the client is told of at the beginning.
    pub(super) seen: HashMap<TaskId, Stamp>,
    pub(super) _slot: OwnedSemaphorePermit,
}

impl Subscription {
    /// Takes note of how things stand, newest first; what happened before is not told any more.
    pub(super) fn begin(&mut self, present: Vec<(Stamp, TaskInfo)>) {
        for (stamp, info) in present.into_iter().rev() {
            self.seen.insert(info.task_id, stamp);
            let (kind, json) = (EventKind::State, OnceLock::new());
            let event = Event { number: self.now, kind, from: None, stamp, info, json };
            self.present.push_back(Arc::new(event));
        }
    }

    /// The next event; `None` if the server is shutting down or this reader is too slow.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        if let Some(event) = self.present.pop_front() {
            return Some(event);
        }
        if let Some(event) = self.missed.as_mut().and_then(VecDeque::pop_front) {
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

    /// What to tell the client that it has seen with this event.
    pub(crate) fn id(&self, event: &Event) -> EventId {
        EventId { run: self.run, number: event.number }
    }
}
