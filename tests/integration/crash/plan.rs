//! Plan of a round: the requests of each connection, and the time of the server's death. Everything
//! follows from the seed.

use std::time::Duration;

use fastrand::Rng;

use crate::crash::outputs::INPUTS;

/// Number of concurrent clients.
pub(crate) const CONNECTIONS: usize = 6;
/// Few output files, so that some submissions find theirs in use, and some replace an old one.
const OUTPUTS_PER_INPUT: usize = 8;

/// Shutdown grace of running tasks after SIGTERM.
pub(crate) const GRACE: &str = "300ms";
/// Longer than any orderly stop: the grace, and a second for tasks that ignore it. In microseconds.
const LONGEST_DRAIN: u64 = 2_000_000;

/// One life of a server.
#[derive(Debug)]
pub(crate) struct Round {
    /// Operations of each connection, in order.
    pub(crate) connections: Vec<Vec<Operation>>,
    /// The reader of the event stream disconnects and resumes after each of these numbers of
    /// events.
    pub(crate) hang_ups: Vec<usize>,
    /// Number of responses and then the pause before the kill.
    pub(crate) kill: (usize, Duration),
    /// Time between a SIGTERM and the SIGKILL; `None` without SIGTERM.
    pub(crate) drain: Option<Duration>,
    /// Further starts after the kill, each killed after that time.
    pub(crate) boots: Vec<Duration>,
}

/// One request. The number picks one of the connection's tasks.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Submit(Submission),
    /// Reads a task.
    Look(usize),
    /// Reads some events of a task, from where this connection stopped.
    Follow(usize),
    Cancel(usize),
    /// Cancels all unfinished tasks this connection submitted in this round.
    CancelAll,
    Retry(usize),
    /// Repeats a submission with an `Idempotency-Key`.
    Repeat(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) kind: Kind,
    pub(crate) priority: i32,
    /// True to send an `Idempotency-Key`.
    pub(crate) keyed: bool,
}

/// Behaviour of a task.
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
    /// Runs this long after its submission.
    Later {
        millis: u64,
    },
    /// Processes an input, text or image, into one of its outputs.
    File {
        input: usize,
        output: usize,
    },
    /// Fails in each attempt, because its input does not exist.
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
        // Right after a response, in the middle of a commit or of a task, or while little happens.
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
    // Submissions that share an output may be refused, which makes the result of a repetition
    // ambiguous.
    let keyed = !matches!(kind, Kind::File { .. }) && rng.usize(0..4) == 0;
    Submission { kind, priority: rng.i32(0..3), keyed }
}
