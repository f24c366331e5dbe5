//! The routes about the server itself: health, and what it can run.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{ApiError, ErrorBody};
use crate::manager::TaskManager;
use crate::task::PathUse;

/// That the server is there.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Greeting {
    status: &'static str,
    service: &'static str,
}

/// Say hello.
#[utoipa::path(get, path = "/", tag = "service", security(()),
               responses((status = 200, body = Greeting)))]
pub(super) async fn root() -> Json<Greeting> {
    Json(Greeting { status: "ok", service: "task-server" })
}

/// Is the process alive?
#[utoipa::path(get, path = "/health/live", tag = "service", security(()),
               responses((status = 200, body = Greeting)))]
pub(super) async fn live() -> Json<Greeting> {
    root().await
}

/// How busy the server is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Readiness {
    /// `ok` or `draining`.
    status: &'static str,
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
        (status = 200, body = Readiness),
        (status = 503, body = Readiness, description = "It is shutting down"),
    )
)]
pub(super) async fn ready(State(manager): State<TaskManager>) -> Result<Response, ApiError> {
    // Shows that the database answers, too.
    manager.current().await?;
    let load = manager.load();
    let (code, status) = match manager.is_draining() {
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        false => (StatusCode::OK, "ok"),
    };
    let readiness = Readiness {
        status,
        running: load.running,
        pending: load.pending,
        abandoned_threads: load.abandoned_threads,
    };
    Ok((code, Json(readiness)).into_response())
}

/// One type of task.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TaskTypeView {
    /// For `task_type` of a submission.
    task_type: &'static str,
    /// What it does.
    description: String,
    /// JSON Schema of its parameters.
    #[schema(value_type = Object)]
    parameters: Value,
    /// The parameters that a submission may leave out.
    #[schema(value_type = Object)]
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
        (status = 200, body = Vec<TaskTypeView>),
        (status = 401, body = ErrorBody, description = "No valid API key"),
    )
)]
pub(super) async fn task_types(State(manager): State<TaskManager>) -> Json<Vec<TaskTypeView>> {
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
