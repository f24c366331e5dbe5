//! The routes about the server itself: health, and what it can run.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use super::dashboard;
use super::error::{ApiError, ErrorBody};
use super::query::NoQuery;
use crate::manager::{Minute, TaskManager};
use crate::task::{PathUse, Timestamp, machine};

/// That the server is there.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Greeting {
    status: &'static str,
    service: &'static str,
}

const GREETING: Greeting = Greeting { status: "ok", service: "task-server" };

/// Say hello.
#[utoipa::path(
    get, path = "/", tag = "service", security(()),
    responses(
        (status = 200, body = Greeting, description = "Hello"),
        (status = 303, description = "A browser is sent to the dashboard"),
    )
)]
pub(super) async fn root(headers: HeaderMap, _: NoQuery) -> Response {
    let vary = [(header::VARY, "accept")];
    match dashboard::is_wanted(&headers) {
        true => (vary, Redirect::to("/dashboard")).into_response(),
        false => (vary, Json(GREETING)).into_response(),
    }
}

/// Is the process alive?
#[utoipa::path(get, path = "/health/live", tag = "service", security(()),
               responses((status = 200, body = Greeting, description = "It is")))]
pub(super) async fn live(_: NoQuery) -> Json<Greeting> {
    Json(GREETING)
}

/// How busy the server is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Readiness {
    /// `ok`, `draining`, or `blocked` while abandoned threads hold all CPU slots.
    status: &'static str,
    /// Why the server is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Tasks that run.
    running: usize,
    /// Tasks that wait.
    pending: usize,
    /// Threads that still work for an attempt that was given up.
    abandoned_threads: usize,
}

/// Does the server take submissions?
#[utoipa::path(
    get, path = "/health/ready", tag = "service", security(()),
    responses(
        (status = 200, body = Readiness, description = "It does"),
        (status = 503, body = Readiness, description = "It is shutting down, or blocking work cannot run; or a sentence that says what is wrong with its files"),
    )
)]
pub(super) async fn ready(
    State(manager): State<TaskManager>,
    _: NoQuery,
) -> Result<Response, ApiError> {
    manager.check_files()?;
    // Shows that the database answers, too.
    manager.current().await?;
    let load = manager.load();
    let (status, reason) = if manager.is_draining() {
        ("draining", Some("the server is shutting down".to_owned()))
    } else if load.cpu_slots_exhausted {
        let threads = load.abandoned_threads;
        let reason = format!(
            "{threads} abandoned threads hold all CPU slots, lent ones included: blocking work \
             waits until one of them ends; a restart ends them all"
        );
        ("blocked", Some(reason))
    } else {
        ("ok", None)
    };
    let code = match reason {
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
        None => StatusCode::OK,
    };
    let readiness = Readiness {
        status,
        reason,
        running: load.running,
        pending: load.pending,
        abandoned_threads: load.abandoned_threads,
    };
    Ok((code, Json(readiness)).into_response())
}

/// How many tasks there are, and what happened in the last hour.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Stats {
    /// Stored tasks by status.
    #[schema(value_type = BTreeMap<String, u64>)]
    counts: BTreeMap<&'static str, u64>,
    /// Minute by minute since the start of the server, an hour at the most; oldest first, and the last
    /// one is not over.
    minutes: Vec<MinuteView>,
}

/// What happened in a minute.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct MinuteView {
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Tasks that were submitted.
    submitted: u64,
    /// Attempts that completed their task.
    completed: u64,
    /// Attempts after which their task was failed.
    failed: u64,
    /// Tasks that were cancelled.
    cancelled: u64,
}

/// How many tasks are there, and what has happened lately?
#[utoipa::path(
    get, path = "/stats", tag = "service",
    responses(
        (status = 200, body = Stats, description = "The numbers"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
    )
)]
pub(super) async fn stats(State(manager): State<TaskManager>, _: NoQuery) -> Json<Stats> {
    let counts = manager.counts().map(|(status, count)| (status.name(), count)).collect();
    let minutes = manager.last_hour().into_iter().map(|minute| {
        let Minute { at, submitted, completed, failed, cancelled } = minute;
        MinuteView { at, submitted, completed, failed, cancelled }
    });
    Json(Stats { counts, minutes: minutes.collect() })
}

/// One type of task.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TaskTypeView {
    /// For `task_type` of a submission.
    task_type: &'static str,
    /// What it does.
    description: String,
    /// JSON Schema of its parameters.
    #[schema(value_type = BTreeMap<String, Value>)]
    parameters: Value,
    /// The parameters that a submission may leave out.
    #[schema(value_type = BTreeMap<String, Value>)]
    defaults: Map<String, Value>,
    /// Whether it reads a file.
    input_file_path: PathUse,
    /// Whether it writes a file.
    output_file_path: PathUse,
}

/// List the types of task.
#[utoipa::path(
    get, path = "/task-types", tag = "service",
    responses(
        (status = 200, body = Vec<TaskTypeView>, description = "Every type"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
    )
)]
pub(super) async fn task_types(
    State(manager): State<TaskManager>,
    _: NoQuery,
) -> Json<Vec<TaskTypeView>> {
    let views = manager.registry().iter().map(|(task_type, task)| TaskTypeView {
        task_type: task_type.name(),
        description: task.description().to_owned(),
        parameters: task.schema().clone(),
        defaults: task.defaults().clone(),
        input_file_path: task.paths().input,
        output_file_path: task.paths().output,
    });
    Json(views.collect())
}

/// The folders that tasks may read and write.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Roots {
    /// A hash that tells a client whether it runs on the same machine, where paths lead to the same files;
    /// `null` if the system has nothing to tell machines apart.
    machine: Option<String>,
    /// Absolute paths without symbolic links. Relative paths start in the first one.
    roots: Vec<String>,
}

/// Where may files be?
#[utoipa::path(
    get, path = "/roots", tag = "service",
    responses(
        (status = 200, body = Roots, description = "The folders"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
    )
)]
pub(super) async fn roots(State(manager): State<TaskManager>, _: NoQuery) -> Json<Roots> {
    let roots = manager.files().roots().map(|root| root.display().to_string());
    Json(Roots { machine: machine(), roots: roots.collect() })
}
