//! Attempts at tasks that this node has claimed. They are served from memory, and cancelled there first.
//! Only this module changes the state of an attempt.

mod attempts;
mod conclude;
mod log;
mod polls;
mod progress;
mod run;
mod stamp;
mod state;

pub(super) use attempts::Attempts;
pub(super) use conclude::MAX_BACKOFF;
pub(crate) use conclude::MAX_RESULT_BYTES;
pub(super) use log::{finish as finish_log, store as store_log};
pub(super) use progress::store_progress;
pub(super) use run::Runner;
pub(super) use stamp::Stamp;
pub(super) use state::{Attempt, CancelRequest};
