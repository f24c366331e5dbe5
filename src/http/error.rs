//! Errors of the API: their JSON shape, and the mapping from domain errors to status codes.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::manager::{LogError, OutputError, RetryError, StoreError, SubmitError, WatchError};
use crate::task::{Fault, MAX_FAULTS, new_uuid, with_causes};

/// Error response.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    detail: Detail,
    header: Option<(HeaderName, HeaderValue)>,
}

/// Body of an error response.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ErrorBody {
    detail: Detail,
}

/// One message, or all faults of the request.
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
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self { status, detail: Detail::Faults(faults), header: None }
    }

    /// Faults whose locations are relative to the body.
    pub(super) fn invalid_body(mut faults: Vec<Fault>) -> Self {
        for fault in &mut faults {
            fault.loc.insert(0, "body".into());
        }
        Self::invalid(faults)
    }

    pub(super) fn task_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Task not found")
    }

    /// The output of a completed task was deleted, replaced or made unreadable.
    pub(super) fn output_gone(error: &(dyn std::error::Error + 'static)) -> Self {
        let detail = format!("the output can no longer be read: {}", with_causes(error));
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    /// Logs the cause under a reference, and gives the client only the reference.
    pub(super) fn internal(cause: &str) -> Self {
        let reference = new_uuid();
        tracing::error!(%reference, cause, "internal error");
        let detail = format!("internal error, logged as {reference}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// The task's end is being stored, or it runs on another node.
    pub(super) fn ending() -> Self {
        Self::busy("the task cannot be cancelled while its attempt is ending: try again")
    }

    pub(super) fn no_memory() -> Self {
        Self::busy(
            "the memory for responses is used up by clients that are still reading: try again",
        )
    }

    pub(super) fn too_many_waits(limit: usize) -> Self {
        let detail =
            format!("too many waiting requests (limit {limit}): try again, or omit `wait`");
        Self::busy(detail)
    }

    /// A temporary condition.
    fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).with(header::RETRY_AFTER, "1")
    }

    fn draining(error: &impl ToString) -> Self {
        Self::of(StatusCode::SERVICE_UNAVAILABLE, error).with(header::RETRY_AFTER, "5")
    }

    /// The message of a domain error.
    fn of(status: StatusCode, error: &impl ToString) -> Self {
        Self::new(status, error.to_string())
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
            StoreError::DiskFull => Self::of(StatusCode::INSUFFICIENT_STORAGE, &error),
            StoreError::Overloaded | StoreError::RetriesUnknown => Self::busy(error.to_string()),
            StoreError::FileLost(_) => Self::of(StatusCode::SERVICE_UNAVAILABLE, &error),
            StoreError::Closed => Self::draining(&SubmitError::Draining),
            StoreError::Database(_) => Self::internal(&with_causes(&error)),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid(faults) => Self::invalid_body(faults),
            SubmitError::Draining => Self::draining(&error),
            SubmitError::QueueFull(_) => {
                Self::of(StatusCode::TOO_MANY_REQUESTS, &error).with(header::RETRY_AFTER, "1")
            }
            SubmitError::KeyReused => Self::of(StatusCode::UNPROCESSABLE_ENTITY, &error),
            SubmitError::Busy(_)
            | SubmitError::RetriedBefore
            | SubmitError::OutputInUse(_)
            | SubmitError::OutputOverlaps(_) => Self::of(StatusCode::CONFLICT, &error),
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<WatchError> for ApiError {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Unknown => Self::task_not_found(),
            WatchError::Draining => Self::draining(&error),
            WatchError::TooMany(_) => Self::busy(error.to_string()),
            WatchError::Store(error) => error.into(),
        }
    }
}

impl From<RetryError> for ApiError {
    fn from(error: RetryError) -> Self {
        match error {
            RetryError::Unknown => Self::task_not_found(),
            RetryError::Unfinished(_) => Self::of(StatusCode::CONFLICT, &error),
            RetryError::Submit(error) => error.into(),
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unknown | LogError::NoAttempt { .. } => {
                Self::of(StatusCode::NOT_FOUND, &error)
            }
            LogError::Read(_) => Self::internal(&with_causes(&error)),
            LogError::Watch(error) => error.into(),
            LogError::Store(error) => error.into(),
        }
    }
}

impl From<OutputError> for ApiError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Unknown
            | OutputError::NotCompleted(_)
            | OutputError::NoPath
            | OutputError::NotWritten(_) => Self::of(StatusCode::NOT_FOUND, &error),
            OutputError::Gone(error) => Self::output_gone(&error),
            OutputError::Panicked => Self::internal(&with_causes(&error)),
            OutputError::Store(error) => error.into(),
        }
    }
}
