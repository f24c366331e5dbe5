//! The JSON body of a submission: read within limits, and refused with every fault it has.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use crate::manager::{Idempotency, Submission, TaskManager};
use crate::task::{CompiledSchema, Fault, TaskType, Timestamp, schema_of, with_causes};

const MAX_BODY_BYTES: usize = 1024 * 1024;
const MAX_KEY_LENGTH: usize = 255;
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A task to run.
#[derive(Debug, Deserialize, JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "task_type": "dummy_short", "parameters": { "duration": 3, "steps": 3 } }))]
pub(super) struct SubmitRequest {
    /// One of the names that `GET /task-types` lists.
    #[schema(value_type = TaskType)]
    task_type: String,
    /// Parameters of that type; what is left out takes its default.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Value>)]
    parameters: Map<String, Value>,
    /// The file to read, below an allowed folder; a relative path starts in the first of them.
    #[schema(max_length = 4096)]
    input_file_path: Option<String>,
    /// The file to write, likewise. It appears, whole, when the task has completed.
    #[schema(max_length = 4096)]
    output_file_path: Option<String>,
    /// Tasks with a higher number run first.
    #[serde(default)]
    #[schemars(range(min = i32::MIN))]
    #[schema(minimum = -2_147_483_648, maximum = 2_147_483_647)]
    priority: i32,
    /// How long one attempt may take, in seconds, greater than 0. Without it there is no limit.
    #[schema(exclusive_minimum = 0, maximum = 3_155_760_000.0)]
    timeout_seconds: Option<f64>,
    /// Labels that lists can be filtered by: at most 16, keys of at most 64 characters, values of
    /// at most 256.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// Not before this time (RFC 3339, with an offset); the past means now.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    run_at: Option<Timestamp>,
    /// How often the task is tried before it is failed, 1 to 1000; 1 if not given.
    #[schema(minimum = 1, maximum = 1000)]
    max_attempts: Option<u32>,
}

impl From<SubmitRequest> for Submission {
    fn from(request: SubmitRequest) -> Self {
        Self {
            task_type: request.task_type,
            parameters: request.parameters,
            input_file_path: request.input_file_path,
            output_file_path: request.output_file_path,
            priority: request.priority,
            timeout_seconds: request.timeout_seconds,
            max_attempts: request.max_attempts,
            tags: request.tags,
            run_at: request.run_at,
            retry: None,
            idempotency: None,
        }
    }
}

/// Refuses a body that says something, for routes whose requests are told by path and query alone.
pub(super) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        let body = request.into_body();
        if body.is_end_stream() {
            return Ok(Self);
        }
        let bytes = read(body).await?;
        let text = bytes.trim_ascii();
        match serde_json::from_slice::<Map<String, Value>>(text) {
            _ if text.is_empty() => Ok(Self),
            Ok(fields) if fields.is_empty() => Ok(Self),
            _ => {
                let msg = "this route reads no body: name the tasks in the path or the query, such as \
                           ?task_type=tokenize&status=pending";
                Err(ApiError::invalid_body(vec![Fault::value(&[], msg, Value::Null)]))
            }
        }
    }
}

/// Reads the submission from a request.
pub(super) async fn submission(
    request: Request,
    manager: &TaskManager,
) -> Result<Submission, ApiError> {
    check_content_type(request.headers())?;
    let (parts, body) = request.into_parts();
    let bytes = read(body).await?;
    let idempotency = idempotency(&parts.headers, &bytes)?;
    match serde_json::from_slice::<SubmitRequest>(&bytes) {
        Ok(request) => Ok(Submission { idempotency, ..Submission::from(request) }),
        Err(error) => Err(ApiError::invalid_body(Box::pin(faults(&bytes, &error, manager)).await)),
    }
}

/// What makes this submission the same as an earlier one. `body` says what is submitted.
pub(super) fn idempotency(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<Idempotency>, ApiError> {
    let key = idempotency_key(headers)?;
    Ok(key.map(|key| Idempotency { key, body_hash: body_hash(body) }))
}

/// The client's name for the submission, with or without the quotes that the draft of that header
/// has (draft-ietf-httpapi-idempotency-key-header).
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    if key.is_empty() || key.len() > MAX_KEY_LENGTH {
        let msg = format!("expected 1 to {MAX_KEY_LENGTH} visible ASCII characters");
        let fault = Fault::value(&["header", "idempotency-key"], msg, text);
        return Err(ApiError::invalid(vec![fault]));
    }
    Ok(Some(key.to_owned()))
}

/// The same for all spellings of one body: white space, the order of fields.
fn body_hash(bytes: &[u8]) -> String {
    let mut body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    body.sort_all_objects();
    let hash = Sha256::digest(body.to_string().as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly JSON: a form or plain text could come from any web page without the browser asking.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.and_then(|given| given.split(';').next()).unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let found = given.unwrap_or("no content type");
    let detail = format!("expected Content-Type: application/json, found `{found}`");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let collected = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(READ_TIMEOUT, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {MAX_BODY_BYTES} bytes: put large data into a file"),
        )),
        Ok(Err(error)) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("the body could not be read: {}", with_causes(&*error)),
        )),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", READ_TIMEOUT.as_secs()),
        )),
    }
}

/// Everything that is wrong with a body that did not parse.
async fn faults(bytes: &[u8], error: &serde_json::Error, manager: &TaskManager) -> Vec<Fault> {
    let Ok(mut body) = serde_json::from_slice::<Value>(bytes) else {
        return vec![Fault {
            kind: "json_invalid",
            loc: vec![json!(error.column())],
            msg: format!("JSON decode error: {error}"),
            input: json!({}),
        }];
    };
    let mut faults = CompiledSchema::new(schema_of::<SubmitRequest>()).faults(&body, &[]);
    // serde knows more than the schema, such as that a field stands there twice.
    if faults.is_empty() {
        faults.push(Fault::value(&[], error.to_string(), Value::Null));
    }
    // What is wrong elsewhere is found by leaving out what is wrong here.
    if let Some(fields) = body.as_object_mut() {
        let faulty =
            |fault: &Fault, field: &str| fault.loc.first().is_some_and(|part| part == field);
        fields.retain(|field, _| !faults.iter().any(|fault| faulty(fault, field.as_str())));
        if let Ok(rest) = SubmitRequest::deserialize(&body)
            && let Err(more) = manager.check(rest.into()).await
        {
            faults.extend(more);
        }
    }
    faults
}
