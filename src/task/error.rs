//! Errors of tasks, and faults in their parameters.

use std::error::Error;
use std::fmt;

/// Reason that a task returned no result.
///
/// `?` converts any standard error into this type. It does not implement `Error` itself, because
/// that conversion would overlap with the one from a type to itself.
#[derive(Debug)]
pub enum TaskError {
    /// The task stopped as requested.
    Cancelled,
    /// The attempt failed.
    Failed {
        /// Description of the failure, including its causes.
        message: String,
        /// `true` if a retry would fail the same way.
        permanent: bool,
    },
}

impl TaskError {
    /// A failure that may not recur in another attempt.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), permanent: false }
    }

    /// A failure that every attempt would repeat, such as an invalid input. Ends all attempts.
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

/// Text of an error, followed by the texts of its causes that add something.
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

/// Faulty fields found by [`Task::validate`](super::Task::validate), with the expected values.
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
    /// Records that `field` should have been `expected` ("at least 1"), unless it `fits`.
    pub fn expect(&mut self, field: &'static str, fits: bool, expected: impl Into<String>) {
        if !fits {
            self.0.push((field, expected.into()));
        }
    }

    /// `Ok` if no fault was recorded.
    ///
    /// # Errors
    /// All recorded faults.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// Faulty fields, each with the expected value.
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(field, expected)| (*field, expected.as_str()))
    }
}
