//! The progress of one attempt: written by the task, read by everyone.

use super::Timestamp;
use parking_lot::Mutex;

/// Longer messages are cut, in bytes.
const MAX_MESSAGE_BYTES: usize = 4096;

/// Latest percent and message. Writing never waits and never fails; the latest write wins.
#[derive(Debug)]
pub(crate) struct Progress {
    state: Mutex<Snapshot>,
}

/// One reading of [`Progress`].
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) percent: f64,
    pub(crate) message: String,
    pub(crate) updated_at: Timestamp,
    /// Counts changes, so that readers can tell whether they have seen this one.
    pub(crate) version: u64,
}

impl Progress {
    pub(crate) fn new(message: &str, now: Timestamp) -> Self {
        Self {
            state: Mutex::new(Snapshot {
                percent: 0.0,
                message: message.to_owned(),
                updated_at: now,
                version: 0,
            }),
        }
    }

    /// Percent outside of 0 to 100 is clamped; NaN leaves the percent as it was.
    pub(crate) fn update(&self, percent: f64, message: String) {
        let mut state = self.state.lock();
        if !percent.is_nan() {
            state.percent = percent.clamp(0.0, 100.0);
        }
        let message = shorten(message, MAX_MESSAGE_BYTES);
        // Swapped out, so that the old text is freed after the lock is released.
        let _old = std::mem::replace(&mut state.message, message);
        state.updated_at = Timestamp::now();
        state.version += 1;
    }

    /// Replaces the message alone and returns the one that stood there.
    pub(crate) fn swap_message(&self, message: String) -> String {
        let mut state = self.state.lock();
        let old = std::mem::replace(&mut state.message, message);
        state.updated_at = Timestamp::now();
        state.version += 1;
        old
    }

    pub(crate) fn read(&self) -> Snapshot {
        self.state.lock().clone()
    }

    pub(crate) fn version(&self) -> u64 {
        self.state.lock().version
    }
}

/// Cuts a text that is longer than `max` bytes, and says so.
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
