//! How tasks fail, and how parameters are refused.

use std::error::Error;
use std::fmt;

/// Why a task did not return a result.
///
/// Any standard error turns into one with `?`. That is why this type is not an error itself: the
/// conversion would cover its own type twice.
#[derive(Debug)]
pub enum TaskError {
    /// The task stopped because it was asked to.
    Cancelled,
    /// The attempt failed.
    Failed {
        /// What went wrong, causes included.
        message: String,
        /// Whether another attempt would fail the same way.
        permanent: bool,
    },
}

impl TaskError {
    /// A failure that another attempt may get past.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), permanent: false }
    }

    /// A failure that no other attempt can mend, such as an input that is not what it should be.
    /// Attempts that are left are skipped.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), permanent: true }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Failed { message, .. } => f.write_str(message),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self::failed(with_causes(&error))
    }
}

/// The error's text followed by those of its causes, but for what is said twice.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// What [`Task::validate`](super::Task::validate) found: for each faulty field what was expected.
///
/// ```
/// use task_server::task::InvalidParameters;
///
/// let steps = 0;
/// let mut invalid = InvalidParameters::default();
/// invalid.expect("steps", steps >= 1, "at least 1");
/// assert!(invalid.into_result().is_err());
/// ```
#[derive(Debug, Default)]
pub struct InvalidParameters(Vec<(&'static str, String)>);

impl InvalidParameters {
    /// Notes that `field` should have been `expected` ("at least 1") unless `fits`.
    pub fn expect(&mut self, field: &'static str, fits: bool, expected: impl Into<String>) {
        if !fits {
            self.0.push((field, expected.into()));
        }
    }

    /// `Ok` if no fault was noted.
    ///
    /// # Errors
    /// The faults.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The faulty fields, each with what was expected.
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(field, expected)| (*field, expected.as_str()))
    }
}
