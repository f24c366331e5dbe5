//! Progress of one attempt: the task writes it, the server reads it.

use super::Timestamp;
use parking_lot::Mutex;

/// Limit in bytes above which messages are cut.
const MAX_MESSAGE_BYTES: usize = 4096;

/// Latest percentage and message. Writes never wait for readers and never fail; the latest wins.
#[derive(Debug)]
pub(crate) struct Progress {
    state: Mutex<Snapshot>,
}

/// A copy of the state of [`Progress`].
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) percent: f64,
    pub(crate) message: String,
    pub(crate) updated_at: Timestamp,
    /// Number of changes so far, for readers that look for news.
    pub(crate) version: u64,
}

impl Progress {
    pub(crate) fn new(message: &str, now: Timestamp) -> Self {
        let message = message.to_owned();
        let state = Snapshot { percent: 0.0, message, updated_at: now, version: 0 };
        Self { state: Mutex::new(state) }
    }

    /// Clamps `percent` to 0..=100; NaN leaves it unchanged.
    pub(crate) fn update(&self, percent: f64, message: String) {
        self.report(Some(percent), Some(message));
    }

    /// Updates what is given, as [`update`](Self::update) does.
    pub(crate) fn report(&self, percent: Option<f64>, message: Option<String>) {
        self.replace(percent, message.map(|message| shorten(message, MAX_MESSAGE_BYTES)));
    }

    /// Replaces the message alone and returns the previous one.
    pub(crate) fn swap_message(&self, message: String) -> String {
        self.replace(None, Some(message)).unwrap_or_default()
    }

    /// Returns the old message, so that it is freed after the lock is released.
    fn replace(&self, percent: Option<f64>, message: Option<String>) -> Option<String> {
        let mut state = self.state.lock();
        if let Some(percent) = percent.filter(|percent| !percent.is_nan()) {
            state.percent = percent.clamp(0.0, 100.0);
        }
        state.updated_at = Timestamp::now();
        state.version += 1;
        message.map(|message| std::mem::replace(&mut state.message, message))
    }

    pub(crate) fn read(&self) -> Snapshot {
        self.state.lock().clone()
    }

    pub(crate) fn version(&self) -> u64 {
        self.state.lock().version
    }
}

/// Cuts a text that is longer than `max` bytes, and marks the cut.
pub(crate) fn shorten(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push_str(" … (cut)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shorten("über".to_owned(), 5), "über");
        assert_eq!(shorten("über".to_owned(), 1), " … (cut)");
    }

    #[test]
    fn percent_is_clamped_and_nan_is_ignored() {
        let progress = Progress::new("", Timestamp::now());
        for (given, seen) in
            [(150.0, 100.0), (f64::NAN, 100.0), (-1.0, 0.0), (f64::INFINITY, 100.0)]
        {
            progress.update(given, String::new());
            assert_eq!(progress.read().percent, seen);
        }
    }
}
