//! Routes about the server itself: health, statistics, task types and roots.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use super::dashboard;
use super::error::ApiError;
use super::query::NoQuery;
use crate::manager::{Minute, TaskManager};
use crate::task::{OutputKind, PathUse, machine};

/// Greeting of a running server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Greeting {
    status: &'static str,
    service: &'static str,
}

const GREETING: Greeting = Greeting { status: "ok", service: "task-server" };

/// Greet.
#[utoipa::path(
    get, path = "/", tag = "service", security(()),
    responses(
        (status = 200, body = Greeting, description = "The server is up"),
        (status = 303, description = "Redirect of browsers to the dashboard"),
    )
)]
pub(super) async fn root(headers: HeaderMap, _: NoQuery) -> Response {
    let vary = [(header::VARY, "accept")];
    match dashboard::is_navigation(&headers) {
        true => (vary, Redirect::to("/dashboard")).into_response(),
        false => (vary, Json(GREETING)).into_response(),
    }
}

/// Check that the process is alive.
#[utoipa::path(get, path = "/health/live", tag = "service", security(()),
               responses((status = 200, body = Greeting, description = "Alive")))]
pub(super) async fn live(_: NoQuery) -> Json<Greeting> {
    Json(GREETING)
}

/// Readiness and load of the server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Readiness {
    /// `ok`, `draining`, or `blocked` while abandoned threads hold all CPU slots.
    status: &'static str,
    /// Reason for not being ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Number of running tasks.
    running: usize,
    /// Number of pending tasks.
    pending: usize,
    /// Number of threads still working for an abandoned attempt.
    abandoned_threads: usize,
}

/// Check that the server accepts submissions.
#[utoipa::path(
    get, path = "/health/ready", tag = "service", security(()),
    responses(
        (status = 200, body = Readiness, description = "Ready"),
        (status = 503, body = Readiness,
         description = "Shutting down, or unable to run blocking work; an error body if its files were lost"),
    )
)]
pub(super) async fn ready(
    State(manager): State<TaskManager>,
    _: NoQuery,
) -> Result<Response, ApiError> {
    manager.check_files()?;
    // Proves that the database responds.
    manager.current().await?;
    let load = manager.load();
    let (code, status, reason) = if manager.is_draining() {
        let reason = "the server is shutting down".to_owned();
        (StatusCode::SERVICE_UNAVAILABLE, "draining", Some(reason))
    } else if load.cpu_slots_exhausted {
        let reason = format!(
            "{} abandoned threads hold all CPU slots: blocking work waits until one of them ends; \
             restart the server to end them all",
            load.abandoned_threads
        );
        (StatusCode::SERVICE_UNAVAILABLE, "blocked", Some(reason))
    } else {
        (StatusCode::OK, "ok", None)
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

/// Task counts, and activity of the last hour.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Stats {
    /// Number of stored tasks by status.
    #[schema(value_type = BTreeMap<String, u64>)]
    counts: BTreeMap<&'static str, u64>,
    /// Minutes since the server started, at most 60, oldest first; the last one is still running.
    minutes: Vec<Minute>,
}

/// Get task counts and the activity of the last hour.
#[utoipa::path(
    get, path = "/stats", tag = "service",
    responses((status = 200, body = Stats, description = "The statistics"))
)]
pub(super) async fn stats(State(manager): State<TaskManager>, _: NoQuery) -> Json<Stats> {
    let counts = manager.counts().map(|(status, count)| (status.name(), count)).collect();
    Json(Stats { counts, minutes: manager.last_hour() })
}

/// A task type.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TaskTypeView {
    /// Name, as in the `task_type` of a submission.
    task_type: &'static str,
    /// Description for users.
    description: String,
    /// JSON Schema of the parameters.
    #[schema(value_type = BTreeMap<String, Value>)]
    parameters: Value,
    /// Default values of optional parameters.
    #[schema(value_type = BTreeMap<String, Value>)]
    defaults: Map<String, Value>,
    /// Use of `input_file_path`.
    input_file_path: PathUse,
    /// Use of `output_file_path`.
    output_file_path: PathUse,
    /// What the task writes there.
    output_kind: OutputKind,
    /// Version of the code, if its author gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Number of CPU slots that a task takes while it runs; absent if it takes them as it needs them.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<usize>,
    /// What is wrong with the file that declares the type. An earlier version of the file may still be in
    /// use; if there is none, submissions are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// List the task types.
#[utoipa::path(
    get, path = "/task-types", tag = "service",
    responses((status = 200, body = Vec<TaskTypeView>, description = "All types"))
)]
pub(super) async fn task_types(
    State(manager): State<TaskManager>,
    _: NoQuery,
) -> Json<Vec<TaskTypeView>> {
    let types = manager.registry().types().into_iter();
    let views = types.map(|(task_type, task)| TaskTypeView {
        task_type: task_type.name(),
        description: task.description().to_owned(),
        parameters: task.schema().clone(),
        defaults: task.defaults().clone(),
        input_file_path: task.paths().input,
        output_file_path: task.paths().output,
        output_kind: task.paths().output_kind,
        version: task.about().version.clone(),
        cpus: Some(task.about().cpus).filter(|cpus| *cpus > 0),
        problem: task.about().problem.clone(),
    });
    Json(views.collect())
}

/// Folders that tasks may read and write.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Roots {
    /// Hash that identifies this machine until its next start, `null` if it has no machine id. On the same
    /// machine, the same path is the same file.
    machine: Option<String>,
    /// Absolute paths without symbolic links. Relative paths are resolved against the first.
    roots: Vec<String>,
}

/// List the folders that tasks may read and write.
#[utoipa::path(
    get, path = "/roots", tag = "service",
    responses((status = 200, body = Roots, description = "The folders"))
)]
pub(super) async fn roots(State(manager): State<TaskManager>, _: NoQuery) -> Json<Roots> {
    let roots = manager.files().roots().map(|root| root.display().to_string());
    Json(Roots { machine: machine(), roots: roots.collect() })
}
