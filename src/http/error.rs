//! Every error of the API: one JSON shape, and the one place where inner errors meet status codes.

use std::any::Any;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::manager::{OutputError, RetryError, StoreError, SubmitError, WatchError};
use crate::task::{Fault, MAX_FAULTS, new_uuid, with_causes};

/// An answer that says what was wrong.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    detail: Detail,
    header: Option<(HeaderName, HeaderValue)>,
}

/// The body of every error.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ErrorBody {
    detail: Detail,
}

/// A sentence, or all that is wrong with the request.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
enum Detail {
    Sentence(String),
    Faults(Vec<Fault>),
}

impl ApiError {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: Detail::Sentence(detail.into()), header: None }
    }

    pub(super) fn invalid(mut faults: Vec<Fault>) -> Self {
        faults.truncate(MAX_FAULTS);
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            detail: Detail::Faults(faults),
            header: None,
        }
    }

    /// Faults in the body of a request.
    pub(super) fn invalid_body(mut faults: Vec<Fault>) -> Self {
        for fault in &mut faults {
            fault.loc.insert(0, "body".into());
        }
        Self::invalid(faults)
    }

    pub(super) fn task_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Task not found")
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    /// Answers a request whose handler panicked; the panic itself is in the log already.
    pub(super) fn from_panic(_: Box<dyn Any + Send>) -> Response {
        Self::internal("a handler panicked").into_response()
    }

    /// The client learns a reference, the log the cause.
    fn internal(cause: &str) -> Self {
        let reference = new_uuid();
        tracing::error!(%reference, cause, "internal error");
        let detail = format!("internal error, the log has more under {reference}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// A task cannot be cancelled now: its end is still being stored, or it runs where this server does not
    /// reach it.
    pub(super) fn ending() -> Self {
        Self::busy(
            "the task cannot be cancelled at this moment, because its attempt is ending: ask again",
        )
    }

    /// Other answers have used up the memory that answers may take.
    pub(super) fn no_memory() -> Self {
        let detail = "answers that other clients have yet to read use up the memory for answers: try \
                      again in a moment";
        Self::busy(detail)
    }

    pub(super) fn too_many_waits(limit: usize) -> Self {
        let detail = format!(
            "{limit} requests are waiting for tasks to end, which is the limit: try later, or ask \
             without `wait`"
        );
        Self::busy(detail)
    }

    /// A moment later it may be different.
    fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).with(header::RETRY_AFTER, "1")
    }

    fn draining() -> Self {
        let detail = "the server is shutting down, submit again after its restart";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).with(header::RETRY_AFTER, "5")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorBody { detail: self.detail })).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "the disk that holds the database is full: make room and try again",
            ),
            StoreError::Overloaded => {
                Self::busy("too many lists are being read: try again in a moment")
            }
            StoreError::RetriesUnknown => Self::busy(
                "after an upgrade the history is still being searched for retries: try again in a moment",
            ),
            StoreError::FileLost(name) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "`{name}` was deleted or replaced while the server was using it, so nothing more \
                     is accepted: put it back if it was moved, and restart the server"
                ),
            ),
            StoreError::Closed => Self::draining(),
            StoreError::Database(_) => Self::internal(&with_causes(&error)),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid(faults) => Self::invalid_body(faults),
            SubmitError::Draining => Self::draining(),
            SubmitError::Busy(id) => {
                let id = id.map(|id| id.to_string()).unwrap_or_default();
                Self::new(StatusCode::CONFLICT, format!("A task is already running: {id}"))
            }
            SubmitError::QueueFull(limit) => {
                let detail = format!("{limit} tasks are waiting, which is the limit: try later");
                Self::new(StatusCode::TOO_MANY_REQUESTS, detail).with(header::RETRY_AFTER, "1")
            }
            SubmitError::RetriedBefore => {
                Self::new(StatusCode::CONFLICT, "the task was retried before, see its retried_by")
            }
            SubmitError::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "this Idempotency-Key was used with another body: send each submission under a \
                 key of its own",
            ),
            SubmitError::OutputInUse(id) => {
                let detail = format!(
                    "task {id} is unfinished and writes the same output_file_path: name another \
                     file, or wait for that task"
                );
                Self::new(StatusCode::CONFLICT, detail)
            }
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<WatchError> for ApiError {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Unknown => Self::task_not_found(),
            WatchError::Draining => Self::draining(),
            WatchError::TooMany(limit) => {
                Self::busy(format!("{limit} event streams are open, which is the limit: try later"))
            }
            WatchError::Store(error) => error.into(),
        }
    }
}

impl From<RetryError> for ApiError {
    fn from(error: RetryError) -> Self {
        match error {
            RetryError::Unknown => Self::task_not_found(),
            RetryError::Unfinished(status) => {
                let detail = format!(
                    "Task cannot be retried, it is still {}: cancel it first",
                    status.name()
                );
                Self::new(StatusCode::CONFLICT, detail)
            }
            RetryError::Submit(error) => error.into(),
        }
    }
}

impl From<OutputError> for ApiError {
    fn from(error: OutputError) -> Self {
        let gone = |detail: String| Self::new(StatusCode::NOT_FOUND, detail);
        match error {
            OutputError::Unknown => Self::task_not_found(),
            OutputError::NotCompleted(status) => gone(format!(
                "there is no output: the task is {}, and only a completed one has published its file",
                status.name()
            )),
            OutputError::NoPath => gone("the task has no output_file_path".to_owned()),
            OutputError::Gone(error) => {
                gone(format!("the output cannot be read any more: {}", with_causes(&error)))
            }
            OutputError::Panicked => Self::internal(&with_causes(&error)),
            OutputError::Store(error) => error.into(),
        }
    }
}
