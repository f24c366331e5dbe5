//! Routes that retry finished tasks.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::body::{self, NoBody};
use super::error::{ApiError, ErrorBody};
use super::query::{self, FilterParams, IdFromPath, NoQuery};
use super::tasks::{self, TaskResponse};
use crate::manager::{RetryAllError, RetryCounts, TaskManager};

/// Result of a bulk retry.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RetryAllResponse {
    /// Reason for stopping before all matching tasks were submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(flatten)]
    counts: RetryCounts,
}

/// Retry a finished task.
///
/// Creates a task with the same type, parameters, paths, priority, tags and limits. Its `retry_of` is the id
/// of the old task, whose `retried_by` is the id of the new one.
#[utoipa::path(
    post, path = "/tasks/{task_id}/retry", tag = "tasks",
    params(
        IdFromPath,
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
         description = "Within 24 hours, the same key for the same task gets the response of the first retry"),
    ),
    responses(
        (status = 200, body = TaskResponse, description = "The new task",
         headers(("Location" = String, description = "Path of the new task")),
         links(
            ("look" = (operation_id = "get", parameters(("task_id" = "$response.body#/task_id")))),
            ("cancel" = (operation_id = "cancel", parameters(("task_id" = "$response.body#/task_id")))),
            ("retry" = (operation_id = "retry", parameters(("task_id" = "$response.body#/task_id")))),
         )),
        (status = 409, body = ErrorBody, description = "The task is unfinished, or a conflict as for a submission"),
        (status = 422, body = ErrorBody, description = "The submission is no longer valid"),
        (status = 429, body = ErrorBody, description = "Queue full"),
    )
)]
pub(super) async fn retry(
    State(manager): State<TaskManager>,
    IdFromPath(id): IdFromPath,
    _: NoQuery,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, ApiError> {
    let idempotency =
        body::idempotency(&headers, json!({ "retry_of": id }).to_string().as_bytes())?;
    Ok(tasks::submitted(manager.retry(id, idempotency).await?))
}

/// Retry all matching tasks.
///
/// Skips unfinished tasks and tasks that have a retry, so repeating the request is safe. Without a status it
/// retries failed tasks. At least one filter is required.
#[utoipa::path(
    post, path = "/tasks/retry", tag = "tasks", params(FilterParams),
    responses(
        (status = 200, body = RetryAllResponse, description = "Number of tasks by outcome"),
        (status = 429, body = RetryAllResponse, description = "Queue full; repeat the request for the remaining tasks",
         headers(("Retry-After" = u32, description = "Seconds"))),
    )
)]
pub(super) async fn retry_all(
    State(manager): State<TaskManager>,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Result<Response, ApiError> {
    let filter = query::bulk_filter(&query::pairs(query.as_deref()), manager.registry())?;
    let (full, counts) = match manager.retry_matching(filter).await {
        Ok(counts) => (None, counts),
        Err(error @ RetryAllError::QueueFull { counts, .. }) => (Some(error.to_string()), counts),
        Err(RetryAllError::Submit(error)) => return Err(error.into()),
    };
    let status = match full {
        Some(_) => StatusCode::TOO_MANY_REQUESTS,
        None => StatusCode::OK,
    };
    let wait = full.is_some().then_some([(header::RETRY_AFTER, "1")]);
    Ok((status, wait, Json(RetryAllResponse { detail: full, counts })).into_response())
}
