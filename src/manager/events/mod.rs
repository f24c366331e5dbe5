//! Event streams: what happens to tasks, told to whoever listens.
//!
//! One actor owns the streams and a log of what happened last, from which a client that lost its
//! connection catches up. While nobody listens, and nobody did a moment ago, nothing is logged and
//! changes cost nothing here.

mod hub;
mod subscription;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::TaskManager;
use super::attempt::Stamp;
use crate::store::{ListFilter, StoreError};
use crate::task::{TaskId, TaskInfo, TaskStatus};
use hub::Inbox;
pub(super) use hub::run;
pub(crate) use subscription::Subscription;

/// So many messages may wait for the actor.
const QUEUE_LENGTH: usize = 65_536;
/// A reader who lets more than this many bytes of events pile up is let go of.
const READER_BYTES: usize = 4 << 20;

/// Something that happened to a task, and how the task stands since.
#[derive(Debug)]
pub(crate) struct Event {
    /// Counts events.
    number: u64,
    pub(crate) kind: EventKind,
    /// The status before; `None` for a new task.
    from: Option<TaskStatus>,
    stamp: Stamp,
    pub(crate) info: TaskInfo,
    json: OnceLock<String>,
    tags: OnceLock<HashMap<String, String>>,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// The task changed its status, or this is how it stands when the stream begins.
    State,
    /// A running task reported progress, or was asked to stop.
    Progress,
}

impl Event {
    /// The task as JSON, made once for all who listen.
    pub(crate) fn json(&self) -> &str {
        self.json.get_or_init(|| {
            let json = serde_json::to_string(&self.info);
            json.expect("a task has no keys that JSON cannot express")
        })
    }

    /// The tags of the task, read once for all who ask for some.
    fn tags(&self) -> &HashMap<String, String> {
        self.tags.get_or_init(|| serde_json::from_str(self.info.tags.get()).unwrap_or_default())
    }

    /// About how much memory it takes.
    fn size(&self) -> usize {
        // The texts stand in the task and in its JSON.
        1024 + 2 * self.info.text_bytes()
    }
}

/// What a client has seen of the events: all up to this number, of that run of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventId {
    run: u64,
    number: u64,
}

impl EventId {
    /// Of a client that has seen something that nobody knows.
    pub(crate) const UNKNOWN: Self = Self { run: 0, number: 0 };
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.run, self.number)
    }
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (run, number) = text.split_once('-').ok_or(())?;
        let run = u64::from_str_radix(run, 16).map_err(|_| ())?;
        Ok(Self { run, number: number.parse().map_err(|_| ())? })
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("there is no such task")]
    Unknown,
    #[error("the server is shutting down")]
    Draining,
    #[error("{0} streams are open, which is the limit")]
    TooMany(usize),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which events a stream is about.
#[derive(Clone, Debug)]
pub(crate) enum Interest {
    Task(TaskId),
    /// Those of tasks that match, and of tasks that matched until then.
    Matching(ListFilter),
}

impl Interest {
    fn covers(&self, event: &Event) -> bool {
        match self {
            Self::Task(id) => event.info.task_id == *id,
            Self::Matching(filter) => {
                let has_tag =
                    |(key, value): &(String, String)| event.tags().get(key) == Some(value);
                let matches = |status| filter.matches(&event.info, status);
                (matches(event.info.status) || event.from.is_some_and(matches))
                    && filter.tags.iter().all(has_tag)
            }
        }
    }
}

/// Tells the actor what happened.
#[derive(Debug)]
pub(super) struct Events {
    messages: mpsc::Sender<Message>,
    flags: Arc<Flags>,
    /// One for each stream that may be opened.
    places: Arc<Semaphore>,
    max_streams: usize,
    run: u64,
}

#[derive(Debug, Default)]
struct Flags {
    /// Whether changes are logged.
    logging: AtomicBool,
    /// Whether a change found no place in the queue.
    lost: AtomicBool,
    /// All streams are to end.
    closed: CancellationToken,
}

#[derive(Debug)]
enum Message {
    /// A task changed its status.
    Changed {
        from: Option<TaskStatus>,
        stamp: Stamp,
        info: Box<TaskInfo>,
    },
    Subscribe {
        interest: Interest,
        last: Option<EventId>,
        answer: oneshot::Sender<Subscribed>,
    },
}

/// A new stream.
#[derive(Debug)]
struct Subscribed {
    events: mpsc::Receiver<Arc<Event>>,
    queued: Arc<AtomicUsize>,
    /// The latest event.
    now: u64,
    /// What the client missed, unless that is not known any more.
    missed: Option<VecDeque<Arc<Event>>>,
}

impl Events {
    /// More streams than `max_streams` are refused.
    pub(super) fn new(max_streams: usize) -> (Self, Inbox) {
        let (messages, inbox) = mpsc::channel(QUEUE_LENGTH);
        let flags = Arc::<Flags>::default();
        // Seeded at random, which tells the runs of the server apart.
        let run = RandomState::new().hash_one(0);
        let places = Arc::new(Semaphore::new(max_streams));
        let inbox = Inbox { messages: inbox, flags: Arc::clone(&flags) };
        (Self { messages, flags, places, max_streams, run }, inbox)
    }

    /// Whether anybody wants to hear of changes. Asked **after** the change can be seen by those who
    /// look: a stream that begins later than this answer sees it when it looks.
    pub(super) fn wanted(&self) -> bool {
        self.flags.logging.load(Ordering::SeqCst)
    }

    /// A task has changed its status.
    pub(super) fn changed(&self, from: Option<TaskStatus>, epoch: i64, info: TaskInfo) {
        let (stamp, info) = (Stamp::of(epoch, info.status), Box::new(info));
        let sent = self.messages.try_send(Message::Changed { from, stamp, info });
        if let Err(TrySendError::Full(_)) = sent {
            self.flags.lost.store(true, Ordering::SeqCst);
        }
    }

    /// Number of open streams.
    pub(super) fn streams(&self) -> usize {
        self.max_streams - self.places.available_permits()
    }

    /// Ends all streams.
    pub(super) fn close(&self) {
        self.flags.closed.cancel();
    }

    /// The events from now on, or from where the client was.
    async fn subscribe(
        &self,
        interest: Interest,
        last: Option<EventId>,
    ) -> Result<Subscription, WatchError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| WatchError::TooMany(self.max_streams))?;
        let resumed = last.is_some();
        let last = last.filter(|last| last.run == self.run);
        let (answer, subscribed) = oneshot::channel();
        let message = Message::Subscribe { interest, last, answer };
        self.messages.send(message).await.map_err(|_| WatchError::Draining)?;
        let Subscribed { events, queued, now, missed } =
            subscribed.await.map_err(|_| WatchError::Draining)?;
        Ok(Subscription {
            run: self.run,
            now,
            gap: resumed && missed.is_none(),
            resumed: missed.is_some(),
            missed: missed.unwrap_or_default(),
            present: VecDeque::new(),
            events,
            queued,
            seen: HashMap::new(),
            place: Some(place),
        })
    }
}

impl TaskManager {
    /// The events of a task or of many: how things stand, unless the client goes on where it was,
    /// and then each change.
    ///
    /// # Errors
    /// If there is no such task, or no stream can be opened now.
    pub(crate) async fn watch(
        &self,
        interest: Interest,
        last: Option<EventId>,
    ) -> Result<Subscription, WatchError> {
        // First the stream, then the look: what happens in between is in the stream.
        let mut subscription = self.inner.events.subscribe(interest.clone(), last).await?;
        let present = match &interest {
            Interest::Task(id) => vec![self.state(*id).await?.ok_or(WatchError::Unknown)?],
            Interest::Matching(_) if subscription.resumed => Vec::new(),
            Interest::Matching(filter) => self.states(filter).await?.0,
        };
        // That a task has ended is told in any case, because nothing else would end the stream.
        let ended = present.iter().any(|(_, info)| info.status.is_final());
        let told = subscription.missed.iter().any(|event| event.info.status.is_final());
        if !subscription.resumed || (ended && !told) {
            subscription.begin(present);
        }
        Ok(subscription)
    }
}
