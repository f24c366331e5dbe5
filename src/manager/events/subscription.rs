//! The reading end of an event stream.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::event::{Event, EventId, EventKind, Interest};
use super::log::{Log, Read};
use crate::manager::attempt::Stamp;
use crate::task::{TaskId, TaskInfo};

/// Maximum size of the states that a stream starts with.
const MAX_PRESENT_BYTES: usize = 4 << 20;

/// A cursor into the log, and the states that the stream starts with.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(super) log: Arc<Log>,
    pub(super) interest: Interest,
    pub(super) run: u64,
    /// Number of the last event read.
    pub(super) cursor: u64,
    /// Whether the client may have missed events that are no longer in the log.
    pub(crate) gap: bool,
    /// States of the tasks at the start of the stream.
    pub(super) present: VecDeque<Arc<Event>>,
    /// Stamps of those states, until a later event of the task is read.
    pub(super) seen: HashMap<TaskId, Stamp>,
    /// Permit of the stream, for as long as its connection exists.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

impl Subscription {
    /// Sets the states to start with, newest first, up to [`MAX_PRESENT_BYTES`]. Older states in the log
    /// are skipped.
    pub(super) fn begin(&mut self, present: Vec<(Stamp, TaskInfo)>) {
        let mut bytes = 0;
        for (stamp, info) in present {
            let event = Event::new(self.cursor, EventKind::State, None, stamp, info);
            bytes += event.size();
            if bytes > MAX_PRESENT_BYTES && !self.present.is_empty() {
                break;
            }
            self.seen.insert(event.info.task_id, stamp);
            self.present.push_front(Arc::new(event));
        }
    }

    /// Returns the next event; `None` if the server is shutting down or this stream is too slow.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        if let Some(event) = self.present.pop_front() {
            return Some(event);
        }
        loop {
            let event = match self.log.read(&self.interest, &mut self.cursor) {
                Read::Event(event) => event,
                Read::Parked(woken) => {
                    self.cursor = woken.await.ok()?;
                    continue;
                }
                Read::Over => return None,
            };
            let seen = self.seen.get(&event.info.task_id);
            if seen.is_some_and(|seen| event.stamp <= *seen) {
                continue;
            }
            self.seen.remove(&event.info.task_id);
            return Some(event);
        }
    }

    /// Id to send with an event. `None` until all initial states are sent: a client that disconnects
    /// before has to start over.
    pub(crate) fn id(&self, event: &Event) -> Option<EventId> {
        let id = EventId { run: self.run, number: event.number };
        self.present.is_empty().then_some(id)
    }
}
