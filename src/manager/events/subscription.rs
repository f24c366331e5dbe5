//! The reading end of an event stream.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::event::{Event, EventId, EventKind, Interest};
use super::log::{Log, Read};
use crate::manager::attempt::Stamp;
use crate::task::{TaskId, TaskInfo};

/// Upper limit of the states that a stream begins with, in bytes.
const MAX_PRESENT_BYTES: usize = 4 << 20;

/// A cursor over the log, and the states that the stream begins with.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(super) log: Arc<Log>,
    pub(super) interest: Interest,
    pub(super) run: u64,
    /// Number of the last event that was read.
    pub(super) cursor: u64,
    /// Whether the client may have missed something that cannot be told any more.
    pub(crate) gap: bool,
    /// States of the tasks when the stream began.
    pub(super) present: VecDeque<Arc<Event>>,
    /// The stamps of those, until a later event of the task is read.
    pub(super) seen: HashMap<TaskId, Stamp>,
    /// Slot of the stream, for as long as its connection is there.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

impl Subscription {
    /// Begins with these states, newest first; older ones in the log are left out. If they are more than a
    /// stream may begin with, the newest are taken.
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

    /// Returns the next event; `None` if the server is shutting down or this reader is too slow.
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

    /// Id to send with an event. `None` while states from the beginning are left: a client that is cut off
    /// before has to begin anew.
    pub(crate) fn id(&self, event: &Event) -> Option<EventId> {
        let id = EventId { run: self.run, number: event.number };
        self.present.is_empty().then_some(id)
    }
}
