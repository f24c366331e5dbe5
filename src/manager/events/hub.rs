//! The actor that owns the streams and the log of what happened last.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Event, EventId, EventKind, Flags, Interest, Message, READER_BYTES, Subscribed};
use crate::manager::attempt::{Attempt, Attempts, Stamp};
use crate::task::{TaskId, TaskInfo, TaskStatus};

/// How often the progress of running tasks is looked at.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long the log goes on after the last stream ended, for clients that come back.
const LINGER: Duration = Duration::from_secs(120);
/// The log holds at most this many events,
const LOG_EVENTS: usize = 10_000;
/// and at most this many bytes of them.
const LOG_BYTES: usize = 8 << 20;
/// A reader who lets this many events pile up is let go of.
const READER_EVENTS: usize = 1024;

/// What the actor receives.
#[derive(Debug)]
pub(in crate::manager) struct Inbox {
    pub(super) messages: mpsc::Receiver<Message>,
    pub(super) flags: Arc<Flags>,
}

/// The writing end of a stream.
#[derive(Debug)]
struct Reader {
    events: mpsc::Sender<Arc<Event>>,
    queued: Arc<AtomicUsize>,
}

impl Reader {
    /// Whether the reader is to be kept: it is there, and not too slow.
    fn tell(&self, event: &Arc<Event>) -> bool {
        let queued = self.queued.fetch_add(event.size(), Ordering::Relaxed);
        // One event may be of any size.
        (queued == 0 || queued + event.size() <= READER_BYTES)
            && self.events.try_send(Arc::clone(event)).is_ok()
    }

    fn is_there(&self) -> bool {
        !self.events.is_closed()
    }
}

/// The actor.
struct Hub {
    flags: Arc<Flags>,
    /// The number of the latest event.
    number: u64,
    /// The latest events, with no number left out.
    log: VecDeque<Arc<Event>>,
    log_bytes: usize,
    of_task: HashMap<TaskId, Vec<Reader>>,
    of_many: Vec<(Interest, Reader)>,
    /// When somebody listened last.
    heard: Instant,
    /// Last published state of each running task.
    published: HashMap<TaskId, Stamp>,
}

/// Tells events until the streams are closed.
pub(in crate::manager) async fn run(attempts: Arc<Attempts>, inbox: Inbox) {
    let Inbox { mut messages, flags } = inbox;
    let mut hub = Hub {
        flags: Arc::clone(&flags),
        number: 0,
        log: VecDeque::new(),
        log_bytes: 0,
        of_task: HashMap::new(),
        of_many: Vec::new(),
        heard: Instant::now(),
        published: HashMap::new(),
    };
    let mut ticks = interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = flags.closed.cancelled() => break,
            message = messages.recv() => match message {
                Some(message) => hub.take(message),
                None => return,
            },
            _ = ticks.tick(), if flags.logging.load(Ordering::Relaxed) => {
                let running = attempts.all();
                // First what happened before this look, such as that they began.
                hub.take_all(&mut messages);
                hub.look_at_progress(&running);
                hub.rest_if_alone();
            }
        }
    }
    // The last that is told is how attempts were given back.
    hub.take_all(&mut messages);
}

impl Hub {
    fn take_all(&mut self, messages: &mut mpsc::Receiver<Message>) {
        while let Ok(message) = messages.try_recv() {
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        if self.flags.lost.swap(false, Ordering::SeqCst) {
            // Nobody is up to date any more: all come back, and are told how things stand.
            self.of_task.clear();
            self.of_many.clear();
            self.forget();
        }
        match message {
            Message::Changed { from, stamp, info } => {
                self.tell(EventKind::State, from, stamp, *info);
            }
            Message::Subscribe { interest, last, answer } => {
                // Without a receiver the client has gone already.
                let _ = answer.send(self.subscribe(interest, last));
            }
        }
    }

    fn tell(&mut self, kind: EventKind, from: Option<TaskStatus>, stamp: Stamp, info: TaskInfo) {
        self.number += 1;
        let (number, json, tags) = (self.number, OnceLock::new(), OnceLock::new());
        let event = Arc::new(Event { number, kind, from, stamp, info, json, tags });
        if let Some(readers) = self.of_task.get_mut(&event.info.task_id) {
            readers.retain(|reader| reader.tell(&event));
        }
        self.of_many.retain(|(interest, reader)| !interest.covers(&event) || reader.tell(&event));
        self.log_bytes += event.size();
        self.log.push_back(event);
        while (self.log.len() > LOG_EVENTS || self.log_bytes > LOG_BYTES)
            && let Some(oldest) = self.log.pop_front()
        {
            self.log_bytes -= oldest.size();
        }
    }

    fn subscribe(&mut self, interest: Interest, last: Option<EventId>) -> Subscribed {
        self.heard = Instant::now();
        self.flags.logging.store(true, Ordering::SeqCst);
        let oldest = self.log.front().map_or(self.number + 1, |event| event.number);
        let missed =
            last.filter(|last| (oldest - 1..=self.number).contains(&last.number)).map(|last| {
                let missed = self.log.iter().filter(|event| event.number > last.number);
                missed.filter(|event| interest.covers(event)).cloned().collect()
            });
        let (sender, events) = mpsc::channel(READER_EVENTS);
        let queued = Arc::default();
        let reader = Reader { events: sender, queued: Arc::clone(&queued) };
        match interest {
            Interest::Task(id) => self.of_task.entry(id).or_default().push(reader),
            interest @ Interest::Matching(_) => self.of_many.push((interest, reader)),
        }
        Subscribed { events, queued, now: self.number, missed }
    }

    /// Progress changes too often to publish each change.
    fn look_at_progress(&mut self, running: &[Arc<Attempt>]) {
        let mut published = HashMap::with_capacity(running.len());
        for attempt in running {
            // The end of one that is over was published, or will be.
            if attempt.is_over() {
                continue;
            }
            let id = attempt.claimed.task_id;
            let last = self.published.get(&id).copied();
            let last = last.unwrap_or_else(|| Stamp::of(attempt.epoch, TaskStatus::Running));
            let mut stamp = last;
            if let Some((now, info)) = attempt.snapshot_after(last) {
                stamp = now;
                self.tell(EventKind::Progress, Some(TaskStatus::Running), stamp, info);
            }
            published.insert(id, stamp);
        }
        self.published = published;
    }

    /// Stops logging when nobody has listened for a while.
    fn rest_if_alone(&mut self) {
        self.of_task.retain(|_, readers| {
            readers.retain(Reader::is_there);
            !readers.is_empty()
        });
        self.of_many.retain(|(_, reader)| reader.is_there());
        if !self.of_task.is_empty() || !self.of_many.is_empty() {
            self.heard = Instant::now();
        } else if self.heard.elapsed() > LINGER {
            self.flags.logging.store(false, Ordering::SeqCst);
            self.forget();
        }
    }

    /// From here on nobody is up to date.
    fn forget(&mut self) {
        self.log.clear();
        self.log_bytes = 0;
        self.number += 1;
    }
}
