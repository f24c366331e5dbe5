//! A minimal server with this API: axum, serde and a fresh id, without storage.

use std::path::PathBuf;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::common::server::{self, Server};

/// First argument that makes this program the bare server.
pub(crate) const ARGUMENT: &str = "--bare-server";

/// Starts a bare server that answers every `GET` of a task with this JSON.
pub(crate) fn start(task: &str) -> Server {
    let program: PathBuf = std::env::current_exe().unwrap();
    Server::start_program(&program, server::folder(), &[ARGUMENT, task])
}

/// Serves forever.
pub(crate) fn serve(task: String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let router = Router::new()
            .route("/tasks", post(submit))
            .route("/tasks/{id}", get(task_info))
            .with_state(Bytes::from(task));
        // Logged as INFO, which the bench does not print.
        eprintln!(" INFO listening on http://{}", listener.local_addr().unwrap());
        axum::serve(listener, router).await.unwrap();
    });
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only parsed")]
struct Submission {
    task_type: String,
    parameters: Parameters,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only parsed")]
struct Parameters {
    duration: f64,
    steps: u32,
}

#[derive(Debug, Serialize)]
struct Submitted {
    task_id: Uuid,
    status: &'static str,
    message: &'static str,
}

async fn submit(Json(_): Json<Submission>) -> Json<Submitted> {
    let message = "Task submitted successfully";
    Json(Submitted { task_id: Uuid::now_v7(), status: "pending", message })
}

async fn task_info(Path(_): Path<Uuid>, State(task): State<Bytes>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], task)
}
