//! What happens in a round: who asks for what, and when the server dies. All of it follows from the
//! seed.

use std::time::Duration;

use fastrand::Rng;

use crate::crash::outputs::INPUTS;

/// How many clients talk to the server at once.
pub(crate) const CONNECTIONS: usize = 6;
/// Output files are few, so that some submissions meet one in use, and some replace an old one.
const OUTPUTS_PER_INPUT: usize = 8;

/// The grace that running tasks get after a SIGTERM.
pub(crate) const GRACE: &str = "300ms";
/// Longer than a stop takes: the grace, and a second for what does not notice its end.
const LONGEST_DRAIN: u64 = 2_000_000;

/// One life of a server, and how it ends.
#[derive(Debug)]
pub(crate) struct Round {
    /// What each connection does, one after the other.
    pub(crate) connections: Vec<Vec<Operation>>,
    /// After each of these numbers of events the reader of the event stream disconnects and resumes.
    pub(crate) hang_ups: Vec<usize>,
    /// The end comes that long after that many operations were answered.
    pub(crate) kill: (usize, Duration),
    /// A SIGTERM comes first, and the SIGKILL that long after it, unless the server has ended.
    pub(crate) drain: Option<Duration>,
    /// After it the server is started and killed again, each time after that long.
    pub(crate) boots: Vec<Duration>,
}

/// One request. The numbers pick one of the connection's tasks.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Submit(Submission),
    /// Asks how a task is doing.
    Look(usize),
    /// Reads some events of a task, from where this connection stopped reading them.
    Follow(usize),
    Cancel(usize),
    /// Cancels all unfinished tasks that this connection has submitted in this round.
    CancelAll,
    Retry(usize),
    /// Sends a submission with an `Idempotency-Key` again.
    Repeat(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) kind: Kind,
    pub(crate) priority: i32,
    /// Whether it comes with an `Idempotency-Key`.
    pub(crate) keyed: bool,
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nothing,
    /// Sleeps for a while.
    Slow {
        millis: u64,
    },
    /// Sleeps until it is cancelled.
    Endless,
    /// Sleeps for longer than its timeout allows.
    TimesOut {
        millis: u64,
        attempts: u32,
    },
    /// Runs at a time that is this far ahead when it is submitted.
    Later {
        millis: u64,
    },
    /// Turns an input, a text or an image, into one of the outputs that belong to it.
    File {
        input: usize,
        output: usize,
    },
    /// Fails whenever it is tried, because its input is absent.
    Fails {
        attempts: u32,
    },
}

impl Round {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let connections: Vec<Vec<_>> = (0..CONNECTIONS)
            .map(|_| (0..rng.usize(4..20)).map(|_| operation(rng)).collect())
            .collect();
        let answers = rng.usize(1..=connections.iter().map(Vec::len).sum());
        // Right after an answer, in the midst of a commit or of a task, or when little goes on.
        let longest = [0, 1_000, 20_000, 500_000][rng.usize(0..4)];
        let longest_drain = [20_000, 400_000, LONGEST_DRAIN][rng.usize(0..3)];
        let boots = if rng.usize(0..3) == 0 { rng.usize(1..=2) } else { 0 };
        Self {
            connections,
            hang_ups: (0..rng.usize(0..4)).map(|_| rng.usize(1..60)).collect(),
            kill: (answers, micros(rng, longest)),
            drain: (rng.usize(0..3) == 0).then(|| micros(rng, longest_drain)),
            boots: (0..boots).map(|_| micros(rng, 20_000)).collect(),
        }
    }
}

fn micros(rng: &mut Rng, longest: u64) -> Duration {
    Duration::from_micros(rng.u64(0..=longest))
}

fn operation(rng: &mut Rng) -> Operation {
    let pick = rng.usize(..);
    match rng.usize(0..100) {
        0..55 => Operation::Submit(submission(rng)),
        55..64 => Operation::Look(pick),
        64..70 => Operation::Follow(pick),
        70..83 => Operation::Cancel(pick),
        83..86 => Operation::CancelAll,
        86..94 => Operation::Retry(pick),
        _ => Operation::Repeat(pick),
    }
}

fn submission(rng: &mut Rng) -> Submission {
    let kind = match rng.usize(0..100) {
        0..30 => Kind::Nothing,
        30..46 => Kind::Slow { millis: rng.u64(1..=400) },
        46..50 => Kind::Endless,
        50..58 => Kind::TimesOut { millis: rng.u64(1..=500), attempts: rng.u32(1..=2) },
        58..66 => Kind::Later { millis: rng.u64(1..=1500) },
        66..92 => Kind::File { input: rng.usize(..INPUTS), output: rng.usize(..OUTPUTS_PER_INPUT) },
        _ => Kind::Fails { attempts: rng.u32(1..=2) },
    };
    // Those that share an output may be refused, and then nobody could tell what a repetition is.
    let keyed = !matches!(kind, Kind::File { .. }) && rng.usize(0..4) == 0;
    Submission { kind, priority: rng.i32(0..3), keyed }
}
