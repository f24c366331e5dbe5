//! The routes that submit finished tasks again.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::body::{self, NoBody};
use super::error::{ApiError, ErrorBody};
use super::query::{self, IdFromPath, NoQuery};
use super::tasks::{self, TaskResponse};
use crate::manager::{RetryAllError, RetryCounts, TaskManager};
use crate::task::{TaskStatus, TaskType};

/// Result of a bulk retry.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RetryAllResponse {
    /// Why it ended before all tasks were reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Finished tasks without a retry that matched.
    matched: usize,
    /// Of these, those that were submitted again.
    submitted: usize,
    /// Of these, those that cannot be submitted now: an unfinished task writes the same output, or what was
    /// submitted is not valid any more. A retry of the one task says why.
    conflicts: usize,
}

/// Submit a finished task again.
///
/// A new task with the same type, parameters, paths, priority, tags and limits; its `retry_of` names the
/// old one, whose `retried_by` names it.
#[utoipa::path(
    post, path = "/tasks/{task_id}/retry", tag = "tasks",
    params(
        ("task_id" = String, Path, format = "uuid", description = "Names the old task"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
         description = "The same key for the same task within 24 hours is the same retry: it is answered as the first was"),
    ),
    responses(
        (status = 200, body = TaskResponse, description = "The new task",
         headers(("Location" = String, description = "Where to poll it")),
         links(
            ("look" = (operation_id = "get", parameters(("task_id" = "$response.body#/task_id")))),
            ("cancel" = (operation_id = "cancel", parameters(("task_id" = "$response.body#/task_id")))),
            ("retry" = (operation_id = "retry", parameters(("task_id" = "$response.body#/task_id")))),
         )),
        (status = 401, body = ErrorBody, description = "No valid API key"),
        (status = 403, body = ErrorBody, description = "A read-only API key, or a page of another site"),
        (status = 404, body = ErrorBody, description = "There is no such task"),
        (status = 409, body = ErrorBody, description = "The task is unfinished, or as for a submission"),
        (status = 422, body = ErrorBody, description = "What was submitted then is not valid any more"),
        (status = 429, body = ErrorBody, description = "Too many tasks are waiting"),
        (status = 503, body = ErrorBody, description = "The server is shutting down"),
        (status = 507, body = ErrorBody, description = "The disk is full"),
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

/// Submit all finished tasks again that match.
///
/// Those that have a retry are left out, so asking again submits only what is new. Without a status the failed
/// ones are meant.
#[utoipa::path(
    post, path = "/tasks/retry", tag = "tasks",
    params(
        ("status" = Option<Vec<TaskStatus>>, Query,
         description = "One status or several, also with commas; what is unfinished is left as it is"),
        ("task_type" = Option<Vec<TaskType>>, Query, description = "One type or several, also with commas"),
        ("created_after" = Option<String>, Query, format = "date-time",
         description = "Submitted at this time or later (RFC 3339)"),
        ("created_before" = Option<String>, Query, format = "date-time",
         description = "Submitted before this time (RFC 3339)"),
        ("tag.KEY" = Option<String>, Query, description = "Has this value for the tag KEY"),
    ),
    responses(
        (status = 200, body = RetryAllResponse, description = "All that matched were reached"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
        (status = 403, body = ErrorBody, description = "A read-only API key, or a page of another site"),
        (status = 422, body = ErrorBody, description = "The filter is empty or makes no sense"),
        (status = 429, body = RetryAllResponse,
         description = "Too many tasks are waiting: what was done before that. Ask again for the rest",
         headers(("Retry-After" = u32, description = "Seconds"))),
        (status = 507, body = ErrorBody, description = "The disk is full"),
    )
)]
pub(super) async fn retry_all(
    State(manager): State<TaskManager>,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Result<Response, ApiError> {
    let filter = query::bulk_filter(&query::pairs(query.as_deref()))?;
    let (detail, counts) = match manager.retry_matching(filter).await {
        Ok(counts) => (None, counts),
        Err(RetryAllError::QueueFull { limit, counts }) => {
            let detail = format!(
                "{limit} tasks are waiting, which is the limit; {} were submitted before that: ask again later \
                 for those that are left",
                counts.submitted
            );
            (Some(detail), counts)
        }
        Err(RetryAllError::Submit(error)) => return Err(error.into()),
    };
    let full = detail.is_some();
    let RetryCounts { matched, submitted, conflicts } = counts;
    let answer = Json(RetryAllResponse { detail, matched, submitted, conflicts });
    Ok(match full {
        true => {
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], answer).into_response()
        }
        false => answer.into_response(),
    })
}
