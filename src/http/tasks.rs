//! Routes under `/tasks`. Each handler parses the request, calls the manager once and builds the response.

use axum::Json;
use axum::extract::{Extension, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::{self, NoBody, SubmitRequest};
use super::connections::ConnectionSlot;
use super::error::{ApiError, ErrorBody};
use super::query::{self, FilterParams, IdFromPath, NoQuery};
use crate::manager::{CancelCounts, CancelOutcome, Rendered, TaskManager};
use crate::task::{TaskId, TaskInfo, TaskStatus};

/// Response to a request about one task.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TaskResponse {
    /// The task.
    #[schema(value_type = String, format = "uuid")]
    task_id: TaskId,
    /// Status of the task.
    status: TaskStatus,
    /// Outcome of the request, for people.
    message: &'static str,
}

/// Response to a submission.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum SubmitAnswer {
    /// Stored.
    Stored(TaskResponse),
    /// Only checked.
    DryRun(DryRunResponse),
}

/// Response to a dry run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct DryRunResponse {
    /// Parameters with defaults filled in.
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    parameters: Box<RawValue>,
    /// Outcome of the request, for people.
    message: &'static str,
}

/// Submit a task.
///
/// Responds once the task is durably stored. With `dry_run=true` the submission is checked, including
/// that the input is readable and the output writable, and not stored.
#[utoipa::path(
    post, path = "/tasks", tag = "tasks", request_body = SubmitRequest,
    params(
        ("dry_run" = Option<bool>, Query, description = "Only check the submission"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
         description = "Within 24 hours, the same key and body get the response of the first submission"),
    ),
    responses(
        (status = 200, body = SubmitAnswer, description = "Stored durably",
         headers(("Location" = String, description = "Path of the task")),
         links(
            ("look" = (operation_id = "get", parameters(("task_id" = "$response.body#/task_id")))),
            ("cancel" = (operation_id = "cancel", parameters(("task_id" = "$response.body#/task_id")))),
            ("retry" = (operation_id = "retry", parameters(("task_id" = "$response.body#/task_id")))),
         )),
        (status = 409, body = ErrorBody,
         description = "Conflict with an unfinished task: the same output, or any task with --exclusive"),
        (status = 415, body = ErrorBody, description = "Body is not application/json"),
        (status = 422, body = ErrorBody, description = "Everything that is wrong with the submission"),
        (status = 429, body = ErrorBody, description = "Queue full"),
    )
)]
pub(super) async fn submit(
    State(manager): State<TaskManager>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let dry_run = query::dry_run(query.as_deref())?;
    let submission = body::submission(request, &manager).await?;
    if dry_run {
        let parameters =
            Box::pin(manager.dry_run(submission)).await.map_err(ApiError::invalid_body)?;
        let message = "The submission is valid; it was not stored";
        let answer = DryRunResponse { parameters, message };
        return Ok(Json(SubmitAnswer::DryRun(answer)).into_response());
    }
    Ok(submitted(manager.submit(submission).await?))
}

pub(super) fn submitted(task_id: TaskId) -> Response {
    let location = [(header::LOCATION, format!("/tasks/{task_id}"))];
    let message = "Task submitted successfully";
    let answer = TaskResponse { task_id, status: TaskStatus::Pending, message };
    (location, Json(SubmitAnswer::Stored(answer))).into_response()
}

/// Cancel all matching tasks.
///
/// Skips tasks that have ended. At least one filter is required.
#[utoipa::path(
    post, path = "/tasks/cancel", tag = "tasks", params(FilterParams),
    responses((status = 200, body = CancelCounts, description = "Number of tasks by outcome"))
)]
pub(super) async fn cancel_all(
    State(manager): State<TaskManager>,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Result<Json<CancelCounts>, ApiError> {
    let pairs = query::pairs(query.as_deref());
    let filter = query::bulk_filter(&pairs, manager.registry())?;
    Ok(Json(manager.cancel_matching(filter).await?))
}

/// Get a task.
///
/// With `wait`, responds when the task ends or after that many seconds, whichever comes first.
#[utoipa::path(
    get, path = "/tasks/{task_id}", tag = "tasks",
    params(
        IdFromPath,
        ("wait" = Option<f64>, Query, minimum = 0, description = "Seconds to wait for the task to end, at most 60"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`, as an alternative (RFC 7240)"),
        ("If-None-Match" = Option<String>, Header, description = "ETag of an earlier response"),
    ),
    responses(
        (status = 200, body = TaskInfo, description = "The task",
         headers(("ETag" = String, description = "Version of the task"))),
        (status = 304, description = "Not modified"),
    )
)]
pub(super) async fn get(
    State(manager): State<TaskManager>,
    IdFromPath(id): IdFromPath,
    slot: Option<Extension<ConnectionSlot>>,
    request: Request,
) -> Result<Response, ApiError> {
    let task = match query::wait(request.uri().query(), request.headers())? {
        None => manager.get(id).await?,
        Some(limit) => {
            let hold = || slot.map_or(Ok(()), |Extension(slot)| slot.wait());
            manager.wait(id, limit, hold).await?
        }
    };
    task.map(|task| rendered(task, request.headers())).ok_or_else(ApiError::task_not_found)
}

fn rendered(task: Rendered, headers: &HeaderMap) -> Response {
    let json = HeaderValue::from_static("application/json");
    let body = ([(header::CONTENT_TYPE, json)], task.json);
    query::tagged(headers, &format!("\"{:016x}\"", task.tag), body)
}

/// List tasks, newest first.
#[utoipa::path(
    get, path = "/tasks", tag = "tasks",
    params(
        FilterParams,
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Page size, 100 by default"),
        ("retried" = Option<bool>, Query, description = "Only tasks with a retry, or only tasks without"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,18}$",
         description = "Cursor from the Link header of the previous page"),
    ),
    responses((
        status = 200, body = Vec<TaskInfo>, description = "A page of tasks",
        headers(("Link" = String, description = "Next page (RFC 8288), if there may be one"))
    ))
)]
pub(super) async fn list(
    State(manager): State<TaskManager>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let pairs = query::pairs(query.as_deref());
    let page = manager.list(&query::list_filter(&pairs, manager.registry())?).await?;
    let mut response = json_list(&page.tasks).into_response();
    if let Some(cursor) = page.next
        && let Ok(link) = HeaderValue::try_from(query::next_link(&pairs, cursor))
    {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// JSON of a list. The buffer is allocated once: growing it would take two to three times the memory.
fn json_list(tasks: &[TaskInfo]) -> impl IntoResponse + use<> {
    /// Bytes of a task's field names, numbers and times.
    const REST: usize = 1024;
    let size = tasks.iter().map(|task| REST + task.text_bytes()).sum();
    let mut json = Vec::with_capacity(size);
    serde_json::to_writer(&mut json, tasks).expect("the keys of a task are strings");
    json.shrink_to_fit();
    ([(header::CONTENT_TYPE, "application/json")], json)
}

/// Get the current task.
///
/// The task that started last, else the pending task submitted last, else `null`.
#[utoipa::path(
    get, path = "/tasks/current/info", tag = "tasks",
    responses((status = 200, body = Option<TaskInfo>, description = "The task, or `null`"))
)]
pub(super) async fn current(
    State(manager): State<TaskManager>,
    _: NoQuery,
) -> Result<Json<Option<TaskInfo>>, ApiError> {
    Ok(Json(manager.current().await?))
}

/// Cancel a task.
///
/// The task stays stored. A running task is asked to stop and given a second to do so.
#[utoipa::path(
    delete, path = "/tasks/{task_id}", tag = "tasks", params(IdFromPath),
    responses(
        (status = 200, body = TaskResponse, description = "Cancelled"),
        (status = 202, body = TaskResponse, description = "Asked to stop, still running"),
        (status = 409, body = ErrorBody, description = "The task has ended"),
        (status = 503, body = ErrorBody, description = "The current attempt is ending; retry after Retry-After"),
    )
)]
pub(super) async fn cancel(
    State(manager): State<TaskManager>,
    IdFromPath(task_id): IdFromPath,
    _: NoQuery,
    _: NoBody,
) -> Result<Response, ApiError> {
    let (code, status, message) = match manager.cancel(task_id).await? {
        CancelOutcome::Cancelled => {
            (StatusCode::OK, TaskStatus::Cancelled, "Task cancelled successfully")
        }
        CancelOutcome::Requested => {
            (StatusCode::ACCEPTED, TaskStatus::Running, "Cancellation requested")
        }
        CancelOutcome::Ending => return Err(ApiError::ending()),
        CancelOutcome::Unknown => return Err(ApiError::task_not_found()),
        CancelOutcome::AlreadyFinal(status) => {
            let detail = format!("Task cannot be cancelled, it is already {}", status.name());
            return Err(ApiError::new(StatusCode::CONFLICT, detail));
        }
    };
    Ok((code, Json(TaskResponse { task_id, status, message })).into_response())
}
