//! The JSON body of a submission: size and time limits, and all of its faults in one response.

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
use crate::task::{CompiledSchema, Fault, Timestamp, schema_of, with_causes};

const MAX_BODY_BYTES: usize = 1024 * 1024;
const MAX_KEY_LENGTH: usize = 255;
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A task to run.
#[derive(Debug, Deserialize, JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "task_type": "dummy_short", "parameters": { "duration": 3, "steps": 3 } }))]
pub(super) struct SubmitRequest {
    /// A name from `GET /task-types`.
    task_type: String,
    /// Parameters of that type; omitted ones take their defaults.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Value>)]
    parameters: Map<String, Value>,
    /// File to read, below one of the `GET /roots`; a relative path is resolved against the first.
    #[schema(max_length = 4096)]
    input_file_path: Option<String>,
    /// File to write, likewise. It appears when the task completes, never in part.
    #[schema(max_length = 4096)]
    output_file_path: Option<String>,
    /// Tasks with a higher number run first.
    #[serde(default)]
    #[schemars(range(min = i32::MIN))]
    #[schema(minimum = -2_147_483_648, maximum = 2_147_483_647)]
    priority: i32,
    /// Time limit of one attempt in seconds, greater than 0; no limit by default.
    #[schema(exclusive_minimum = 0, maximum = 3_155_760_000.0)]
    timeout_seconds: Option<f64>,
    /// Labels to filter lists by: at most 16, with keys of up to 64 and values of up to 256 characters.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// Earliest start (RFC 3339, with an offset); a time in the past means now.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    run_at: Option<Timestamp>,
    /// Number of attempts before the task fails, 1 to 1000; 1 by default.
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

/// Rejects a body other than `{}` on routes that read only the path and the query.
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
                let msg = "expected no body: select tasks by path or query, such as \
                           ?task_type=tokenize&status=pending";
                Err(ApiError::invalid_body(vec![Fault::value(&[], msg, Value::Null)]))
            }
        }
    }
}

/// Parses the submission in a request.
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

/// Identity of a submission: its `Idempotency-Key`, with or without the quotes that
/// draft-ietf-httpapi-idempotency-key-header puts around it, and a hash of `body`.
pub(super) fn idempotency(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<Idempotency>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    if key.is_empty() || key.len() > MAX_KEY_LENGTH {
        let msg = format!("expected 1 to {MAX_KEY_LENGTH} visible ASCII characters");
        let fault = Fault::value(&["header", "idempotency-key"], msg, text);
        return Err(ApiError::invalid(vec![fault]));
    }
    // The same for every spelling of a body, whatever its white space and order of fields.
    let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
    body.sort_all_objects();
    let body_hash = format!("{:x}", Sha256::digest(body.to_string()));
    Ok(Some(Idempotency { key: key.to_owned(), body_hash }))
}

/// Accepts only JSON: browsers let any web page send forms and plain text without a preflight request.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.and_then(|given| given.split(';').next()).unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let given = given.unwrap_or_default();
    let detail = format!("invalid Content-Type `{given}`: expected application/json");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let collected = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(READ_TIMEOUT, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("body exceeds {MAX_BODY_BYTES} bytes: pass large data as a file"),
        )),
        Ok(Err(error)) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("cannot read the body: {}", with_causes(&*error)),
        )),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("body not received within {} s", READ_TIMEOUT.as_secs()),
        )),
    }
}

/// All faults of a body that did not parse.
async fn faults(bytes: &[u8], error: &serde_json::Error, manager: &TaskManager) -> Vec<Fault> {
    let Ok(mut body) = serde_json::from_slice::<Value>(bytes) else {
        return vec![Fault {
            kind: "json_invalid",
            loc: vec![json!(error.column())],
            msg: format!("JSON decode error: {error}"),
            input: json!({}),
        }];
    };
    let mut faults = CompiledSchema::new(schema_of::<SubmitRequest>())
        .expect("schemars makes valid schemas")
        .faults(&body, &[]);
    // serde finds faults that no schema can express, such as duplicate fields.
    if faults.is_empty() {
        faults.push(Fault::value(&[], error.to_string(), Value::Null));
    }
    // Without the faulty fields the rest may parse, which reveals its faults as well.
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
