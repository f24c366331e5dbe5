//! The routes under `/tasks`: each handler takes the request apart, asks the manager once, and
//! puts the answer together.

use axum::Json;
use axum::extract::{Extension, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::{self, NoBody, SubmitRequest};
use super::connections::ConnectionSlot;
use super::error::{ApiError, ErrorBody};
use super::query::{self, IdFromPath, NoQuery};
use crate::manager::{CancelCounts, CancelOutcome, Rendered, TaskManager};
use crate::task::{TaskId, TaskInfo, TaskStatus, TaskType};

/// Response to a request about one task.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TaskResponse {
    /// The task.
    #[schema(value_type = String, format = "uuid")]
    task_id: TaskId,
    /// Where it stands.
    status: TaskStatus,
    /// In a sentence.
    message: &'static str,
}

/// What became of a submission.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum SubmitAnswer {
    /// It was stored.
    Stored(TaskResponse),
    /// It was only checked.
    DryRun(DryRunResponse),
}

/// What a submission would have been.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct DryRunResponse {
    /// The parameters, with the defaults filled in.
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    parameters: Box<RawValue>,
    /// In a sentence.
    message: &'static str,
}

/// How many tasks a cancellation of many met.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct CancelAllResponse {
    /// Unfinished tasks that matched.
    matched: usize,
    /// Of these, those that are cancelled now.
    cancelled: usize,
    /// Of these, those that run and were asked to stop.
    requested: usize,
}

/// Submit a task.
///
/// Answered once the task is durably stored. With `dry_run=true` everything is checked, also that the
/// input can be read and the output written, and nothing is stored.
#[utoipa::path(
    post, path = "/tasks", tag = "tasks", request_body = SubmitRequest,
    params(
        ("dry_run" = Option<bool>, Query, description = "Check, and store nothing"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
         description = "The same key and body within 24 hours is the same submission: it is answered as the first was"),
    ),
    responses(
        (status = 200, body = SubmitAnswer, description = "Stored; it survives a power cut",
         headers(("Location" = String, description = "Where to poll it")),
         links(
            ("look" = (operation_id = "get", parameters(("task_id" = "$response.body#/task_id")))),
            ("cancel" = (operation_id = "cancel", parameters(("task_id" = "$response.body#/task_id")))),
            ("retry" = (operation_id = "retry", parameters(("task_id" = "$response.body#/task_id")))),
         )),
        (status = 400, body = ErrorBody, description = "The body could not be read"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
        (status = 403, body = ErrorBody, description = "A read-only API key, or a page of another site"),
        (status = 408, body = ErrorBody, description = "The body came too slowly"),
        (status = 409, body = ErrorBody,
         description = "Another unfinished task writes the same output, or with --exclusive any is unfinished"),
        (status = 413, body = ErrorBody, description = "The body is too large"),
        (status = 415, body = ErrorBody, description = "The body is not application/json"),
        (status = 422, body = ErrorBody, description = "Everything that is wrong with the submission"),
        (status = 429, body = ErrorBody, description = "Too many tasks are waiting"),
        (status = 503, body = ErrorBody, description = "The server is shutting down"),
        (status = 507, body = ErrorBody, description = "The disk is full"),
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
        let message = "Nothing is wrong with this submission; it was not stored";
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

/// Cancel all unfinished tasks that match.
#[utoipa::path(
    post, path = "/tasks/cancel", tag = "tasks",
    params(
        ("status" = Option<Vec<TaskStatus>>, Query,
         description = "One status or several, also with commas; what has ended is left as it is"),
        ("task_type" = Option<Vec<TaskType>>, Query, description = "One type or several, also with commas"),
        ("created_after" = Option<String>, Query, format = "date-time",
         description = "Submitted at this time or later (RFC 3339)"),
        ("created_before" = Option<String>, Query, format = "date-time",
         description = "Submitted before this time (RFC 3339)"),
        ("tag.KEY" = Option<String>, Query, description = "Has this value for the tag KEY"),
    ),
    responses(
        (status = 200, body = CancelAllResponse, description = "What became of them"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
        (status = 403, body = ErrorBody, description = "A read-only API key, or a page of another site"),
        (status = 422, body = ErrorBody, description = "The filter is empty or makes no sense"),
        (status = 507, body = ErrorBody, description = "The disk is full"),
    )
)]
pub(super) async fn cancel_all(
    State(manager): State<TaskManager>,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Result<Json<CancelAllResponse>, ApiError> {
    let pairs = query::pairs(query.as_deref());
    let counts = manager.cancel_matching(query::bulk_filter(&pairs)?).await?;
    let CancelCounts { matched, cancelled, requested } = counts;
    Ok(Json(CancelAllResponse { matched, cancelled, requested }))
}

/// Look at a task.
///
/// With `wait` the answer is held until the task has ended or that many seconds are over.
#[utoipa::path(
    get, path = "/tasks/{task_id}", tag = "tasks",
    params(
        ("task_id" = String, Path, format = "uuid", description = "Names the task"),
        ("wait" = Option<f64>, Query, minimum = 0,
         description = "Seconds to wait for the end of the task, 60 at the most"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS` does the same (RFC 7240)"),
        ("If-None-Match" = Option<String>, Header, description = "An ETag of an earlier answer"),
    ),
    responses(
        (status = 200, body = TaskInfo, description = "The task",
         headers(("ETag" = String, description = "Changes with the task"))),
        (status = 304, description = "Nothing has changed"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
        (status = 404, body = ErrorBody, description = "There is no such task"),
        (status = 422, body = ErrorBody, description = "The query makes no sense"),
        (status = 503, body = ErrorBody, description = "Too many requests are waiting"),
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
    let tag = format!("\"{:016x}\"", task.tag);
    let unchanged = query::has_tag(headers, &tag);
    let json = HeaderValue::from_static("application/json");
    let mut response = match unchanged {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, json)], task.json).into_response(),
    };
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// List tasks, newest first.
#[utoipa::path(
    get, path = "/tasks", tag = "tasks",
    params(
        ("status" = Option<Vec<TaskStatus>>, Query, description = "One status or several, also with commas"),
        ("task_type" = Option<Vec<TaskType>>, Query, description = "One type or several, also with commas"),
        ("created_after" = Option<String>, Query, format = "date-time",
         description = "Submitted at this time or later (RFC 3339)"),
        ("created_before" = Option<String>, Query, format = "date-time",
         description = "Submitted before this time (RFC 3339)"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
         description = "Tasks in a page; 100 if not given"),
        ("tag.KEY" = Option<String>, Query, description = "Has this value for the tag KEY"),
        ("retried" = Option<bool>, Query, description = "Has a retry, or has none"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,18}$",
         description = "From the Link header of the page before"),
    ),
    responses(
        (status = 200, body = Vec<TaskInfo>, description = "A page of tasks",
         headers(("Link" = String, description = "The next page (RFC 8288), if there may be one"))),
        (status = 401, body = ErrorBody, description = "No valid API key"),
        (status = 422, body = ErrorBody, description = "The query makes no sense"),
    )
)]
pub(super) async fn list(
    State(manager): State<TaskManager>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let pairs = query::pairs(query.as_deref());
    let page = manager.list(&query::list_filter(&pairs)?).await?;
    let mut response = json_list(&page.tasks).into_response();
    if let Some(cursor) = page.next
        && let Ok(link) = HeaderValue::try_from(query::next_link(&pairs, cursor))
    {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// The JSON of a list. Its buffer is made in one piece: one that grows takes twice what it needs, and for a
/// moment three times.
fn json_list(tasks: &[TaskInfo]) -> impl IntoResponse + use<> {
    /// Names, numbers and times of a task.
    const REST: usize = 1024;
    let size = tasks.iter().map(|task| REST + task.text_bytes()).sum();
    let mut json = Vec::with_capacity(size);
    serde_json::to_writer(&mut json, tasks).expect("a task has no keys that JSON cannot express");
    json.shrink_to_fit();
    ([(header::CONTENT_TYPE, "application/json")], json)
}

/// Look at the current task.
///
/// The task that began to run last, else the pending one that was submitted last, else `null`.
#[utoipa::path(
    get, path = "/tasks/current/info", tag = "tasks",
    responses(
        (status = 200, body = Option<TaskInfo>, description = "The task, or `null`"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
    )
)]
pub(super) async fn current(
    State(manager): State<TaskManager>,
    _: NoQuery,
) -> Result<Json<Option<TaskInfo>>, ApiError> {
    Ok(Json(manager.current().await?))
}

/// Cancel a task.
///
/// It is not erased. A running task is asked to stop and given a second to do so.
#[utoipa::path(
    delete, path = "/tasks/{task_id}", tag = "tasks",
    params(("task_id" = String, Path, format = "uuid", description = "Names the task")),
    responses(
        (status = 200, body = TaskResponse, description = "Cancelled"),
        (status = 202, body = TaskResponse, description = "Asked to stop, which it has not done yet"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
        (status = 403, body = ErrorBody, description = "A read-only API key, or a page of another site"),
        (status = 404, body = ErrorBody, description = "There is no such task"),
        (status = 409, body = ErrorBody, description = "The task has ended; says how"),
        (status = 503, body = ErrorBody, description = "The attempt of the task is ending just now: ask again"),
        (status = 507, body = ErrorBody, description = "The disk is full"),
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
