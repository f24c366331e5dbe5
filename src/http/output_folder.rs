//! Outputs that are folders: a list of their files, and each file.

use axum::Json;
use axum::extract::{RawPathParams, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::output::{self, FileBytes};
use super::query::{IdFromPath, NoQuery};
use crate::manager::TaskManager;
use crate::task::{ListedFile, TaskId};

/// Response with the files of a folder. `next` is the path after which the next page begins.
pub(super) fn list(id: TaskId, files: Vec<ListedFile>, next: Option<&str>) -> Response {
    let mut response = Json(files).into_response();
    output::protect(&mut response);
    // The slash tells a folder from a file that happens to be a list.
    output::insert(&mut response, header::CONTENT_LOCATION, format!("/tasks/{id}/output/"));
    if let Some(next) = next {
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair("after", next).finish();
        let link = format!("</tasks/{id}/output?{query}>; rel=\"next\"");
        output::insert(&mut response, header::LINK, link);
    }
    response
}

/// Get a file of an output that is a folder.
///
/// Like `GET /tasks/{task_id}/output` for an output that is a file.
#[utoipa::path(
    get, path = "/tasks/{task_id}/output/{*path}", tag = "tasks", operation_id = "output_file",
    params(
        IdFromPath,
        ("path" = String, Path, description = "Path of the file in the folder"),
        ("Range" = Option<String>, Header, description = "One range of bytes, such as `bytes=0-1023`"),
        ("If-Range" = Option<String>, Header,
         description = "Send the range only if this is the current ETag, otherwise the whole file"),
        ("If-None-Match" = Option<String>, Header, description = "ETag of an earlier response"),
        ("If-Modified-Since" = Option<String>, Header, description = "Last-Modified of an earlier response"),
    ),
    responses(
        (status = 200, body = FileBytes, content_type = "application/octet-stream", description = "The file",
         headers(("ETag" = String, description = "Version of the file"))),
        (status = 206, body = FileBytes, content_type = "application/octet-stream", description = "The range"),
        (status = 304, description = "Not modified"),
        (status = 404, body = super::error::ErrorBody,
         description = "Task not found or not completed, or no such file in its output"),
        (status = 416, body = super::error::ErrorBody, description = "The range begins after the end of the file"),
    )
)]
pub(super) async fn get_file(
    State(manager): State<TaskManager>,
    IdFromPath(id): IdFromPath,
    params: RawPathParams,
    _: NoQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let path = params.iter().find_map(|(name, value)| (name == "path").then_some(value));
    let path = path.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "no path in the output"))?;
    let file = manager.open_output_file(id, path.to_owned()).await?;
    output::answer(path, file, &headers).await.map_err(|error| ApiError::output_gone(&error))
}
