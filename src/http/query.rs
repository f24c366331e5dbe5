//! Query parameters, and the request headers that choose a response.

use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::error::ApiError;
use crate::manager::{ListFilter, MAX_TAGS};
use crate::task::{Fault, TaskId, TaskStatus, Timestamp};
use crate::tasks::TaskRegistry;

/// Default page size of a list.
pub(crate) const DEFAULT_LIMIT: usize = 100;
/// Largest page size of a list.
pub(crate) const MAX_LIMIT: usize = 1000;
/// Longest time that `wait` holds a request.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// OpenAPI parameters of the filter that lists, event streams and bulk changes share.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents what `list_filter` reads")]
pub(super) struct FilterParams {
    /// One or more statuses, repeated or comma-separated
    status: Option<Vec<TaskStatus>>,
    /// One or more types, repeated or comma-separated
    task_type: Option<Vec<String>>,
    /// Submitted at or after this time (RFC 3339)
    #[param(format = DateTime)]
    created_after: Option<String>,
    /// Submitted before this time (RFC 3339)
    #[param(format = DateTime)]
    created_before: Option<String>,
    /// Value of the tag KEY
    #[param(rename = "tag.KEY")]
    tag: Option<String>,
}

/// Task id in the path.
#[derive(utoipa::IntoParams)]
#[into_params(names("task_id"), parameter_in = Path)]
pub(super) struct IdFromPath(
    /// Id of the task
    #[param(value_type = String, format = "uuid")]
    pub(super) TaskId,
);

impl<S: Send + Sync> FromRequestParts<S> for IdFromPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let params = RawPathParams::from_request_parts(parts, state).await.ok();
        let id = params.iter().flatten().next().map_or("", |(_, id)| id);
        id.parse().map(Self).map_err(|_| {
            let detail = format!("invalid task id `{id}`: expected a UUID");
            ApiError::new(StatusCode::NOT_FOUND, detail)
        })
    }
}

/// Names and values of the query parameters, in order. Drops `_`, which pages add to bypass caches.
pub(super) fn pairs(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.into_owned().filter(|(name, _)| name != "_").collect()
}

/// Rejects query parameters on routes that take none: silently ignoring a filter does harm.
pub(super) struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let pairs = pairs(parts.uri.query());
        let faults: Vec<_> = pairs.iter().map(|(name, _)| unknown(name, &[])).collect();
        if faults.is_empty() { Ok(Self) } else { Err(ApiError::invalid(faults)) }
    }
}

/// Parses the filter in the query of a list.
pub(super) fn list_filter(
    pairs: &[(String, String)],
    types: &TaskRegistry,
) -> Result<ListFilter, ApiError> {
    let mut filter = ListFilter { limit: DEFAULT_LIMIT, ..ListFilter::default() };
    let mut faults = Vec::new();
    for (name, value) in pairs {
        if let Err(found) = set_parameter(&mut filter, types, name, value) {
            faults.extend(found);
        }
        if filter.tags.len() > MAX_TAGS {
            let msg = format!("expected at most {MAX_TAGS} tags, the most a task can have");
            return Err(invalid(name, msg, value.as_str()));
        }
    }
    if faults.is_empty() { Ok(filter) } else { Err(ApiError::invalid(faults)) }
}

fn set_parameter(
    filter: &mut ListFilter,
    types: &TaskRegistry,
    name: &str,
    value: &str,
) -> Result<(), Vec<Fault>> {
    const KNOWN: [&str; 8] = [
        "status",
        "task_type",
        "created_after",
        "created_before",
        "limit",
        "retried",
        "cursor",
        "tag.KEY",
    ];
    let expected =
        |what: &str| vec![Fault::value(&["query", name], format!("expected {what}"), value)];
    let time = || {
        let parsed = Timestamp::from_str(value).map(Some);
        parsed.map_err(|error| expected(&format!("a time such as 2026-01-31T15:30:00Z: {error}")))
    };
    match name {
        "status" => {
            let known = TaskStatus::ALL.iter().map(|status| status.name());
            let find = |name: &str| name.parse().ok();
            add_names(&mut filter.statuses, (name, "status"), value, known, find)?;
        }
        "task_type" => {
            let find = |name: &str| types.find(name).map(|(task_type, _)| task_type);
            let known = types.names().into_iter();
            add_names(&mut filter.task_types, (name, "task type"), value, known, find)?;
        }
        "created_after" => filter.created_after = time()?,
        "created_before" => filter.created_before = time()?,
        "limit" => match value.parse() {
            Ok(limit @ 1..=MAX_LIMIT) => filter.limit = limit,
            _ => return Err(expected(&format!("a whole number from 1 to {MAX_LIMIT}"))),
        },
        "retried" => {
            filter.retried = Some(value.parse().map_err(|_| expected("true or false"))?);
        }
        "cursor" => {
            let what = "a cursor from the Link header of the previous page";
            filter.cursor = Some(value.parse().map_err(|()| expected(what))?);
        }
        name if let Some(key) = name.strip_prefix("tag.") => {
            push_new(&mut filter.tags, (key.to_owned(), value.to_owned()));
        }
        _ => return Err(vec![unknown(name, &KNOWN)]),
    }
    Ok(())
}

/// Adds the comma-separated names in `value` to `list`.
fn add_names<T: PartialEq>(
    list: &mut Vec<T>,
    (parameter, what): (&str, &str),
    value: &str,
    known: impl Iterator<Item = &'static str> + Clone,
    find: impl Fn(&str) -> Option<T>,
) -> Result<(), Vec<Fault>> {
    let mut faults = Vec::new();
    for name in value.split(',').map(str::trim) {
        match find(name) {
            Some(item) => push_new(list, item),
            None => faults.push(Fault::choice(&["query", parameter], what, name, known.clone())),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Parses the filter of a bulk change. Rejects an empty one, which would match every task.
pub(super) fn bulk_filter(
    pairs: &[(String, String)],
    types: &TaskRegistry,
) -> Result<ListFilter, ApiError> {
    let filter = list_filter(pairs, types)?;
    refuse(pairs, &["limit", "cursor"], "not supported here: a bulk change covers all matches")?;
    let msg = "not supported here: a bulk change skips tasks that were retried";
    refuse(pairs, &["retried"], msg)?;
    if pairs.is_empty() {
        let msg = "expected a filter, such as status=pending or task_type=tokenize";
        return Err(invalid("status", msg, Value::Null));
    }
    Ok(filter)
}

/// Parses the filter of an event stream.
pub(super) fn event_filter(
    pairs: &[(String, String)],
    types: &TaskRegistry,
) -> Result<ListFilter, ApiError> {
    let filter = list_filter(pairs, types)?;
    let msg = "not supported here: a stream resumes from the Last-Event-ID header";
    refuse(pairs, &["cursor"], msg)?;
    let msg = "not supported here: a retry is a separate task with its own events";
    refuse(pairs, &["retried"], msg)?;
    Ok(filter)
}

/// Rejects list parameters that a route does not support.
fn refuse(pairs: &[(String, String)], names: &[&str], msg: &str) -> Result<(), ApiError> {
    match pairs.iter().find(|(name, _)| names.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, value)) => Err(invalid(name, msg, value.as_str())),
    }
}

/// Parses `?dry_run=`.
pub(super) fn dry_run(query: Option<&str>) -> Result<bool, ApiError> {
    let parse = |value: &str| value.parse().ok();
    Ok(only(query, "dry_run", parse, "expected true or false")?.unwrap_or(false))
}

/// Parses the query of a route with a single parameter. If it is repeated, the last one counts.
pub(super) fn only<T>(
    query: Option<&str>,
    known: &str,
    parse: impl Fn(&str) -> Option<T>,
    expected: &str,
) -> Result<Option<T>, ApiError> {
    let mut found = None;
    for (name, value) in pairs(query) {
        if name != known {
            return Err(ApiError::invalid(vec![unknown(&name, &[known])]));
        }
        found = Some(parse(&value).ok_or_else(|| invalid(known, expected, value))?);
    }
    Ok(found)
}

pub(super) fn invalid(name: &str, msg: impl Into<String>, input: impl Into<Value>) -> ApiError {
    ApiError::invalid(vec![Fault::value(&["query", name], msg, input)])
}

pub(super) fn unknown(name: &str, known: &[&str]) -> Fault {
    Fault::choice(&["query", name], "query parameter", name, known.iter().copied())
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// `Link` header to the next page: the same query with another cursor.
pub(super) fn next_link(pairs: &[(String, String)], cursor: impl ToString) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.iter().filter(|(name, _)| name != "cursor"));
    query.append_pair("cursor", &cursor.to_string());
    format!("</tasks?{}>; rel=\"next\"", query.finish())
}

/// Cheap test for requests that [`wait`] may hold; false positives are harmless.
pub(super) fn may_wait<B>(request: &Request<B>) -> bool {
    request.uri().path().starts_with("/tasks/")
        && (request.uri().query().is_some() || request.headers().contains_key("prefer"))
}

/// Time to hold the response: `?wait=`, else `Prefer: wait=` (RFC 7240, section 4.3). Invalid
/// preferences are ignored, as that RFC requires.
pub(super) fn wait(query: Option<&str>, headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let asked = only(query, "wait", seconds, "expected a number of seconds, 0 or more")?;
    Ok(asked.or_else(|| preferred_wait(headers)))
}

fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';']));
    preferences.find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| seconds(value.trim()))?
    })
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    // False for NaN.
    let valid = seconds >= 0.0;
    valid.then(|| Duration::from_secs_f64(seconds.min(MAX_WAIT.as_secs_f64())))
}

/// Responds with `body` and its ETag, or with 304 if the client has this version.
pub(super) fn tagged(headers: &HeaderMap, tag: &str, body: impl IntoResponse) -> Response {
    let mut response = match has_tag(headers, tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => body.into_response(),
    };
    let tag = HeaderValue::from_str(tag).map(|tag| (header::ETAG, tag));
    response.headers_mut().extend(tag);
    response
}

/// Evaluates `If-None-Match` (RFC 9110, section 13.1.2).
pub(super) fn has_tag(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = values.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    tags.any(|given| {
        let given = given.trim();
        given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_wait_is_capped_and_nonsense_is_refused() {
        let none = HeaderMap::new();
        assert_eq!(wait(Some("wait=2.5"), &none).unwrap(), Some(Duration::from_millis(2500)));
        assert_eq!(wait(Some("wait=1e9"), &none).unwrap(), Some(MAX_WAIT));
        assert_eq!(wait(None, &none).unwrap(), None);
        for bad in ["wait=-1", "wait=soon", "wait=NaN", "wiat=1"] {
            assert!(wait(Some(bad), &none).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_preference_counts_where_the_query_says_nothing() {
        let asked = headers("prefer", "respond-async, wait=10");
        assert_eq!(wait(None, &asked).unwrap(), Some(Duration::from_secs(10)));
        assert_eq!(wait(Some("wait=1"), &asked).unwrap(), Some(Duration::from_secs(1)));
        assert_eq!(wait(None, &headers("prefer", "wait=soon")).unwrap(), None);
    }

    #[test]
    fn tags_are_compared_weakly_and_in_lists() {
        for matching in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*"] {
            assert!(has_tag(&headers("if-none-match", matching), "\"a\""), "{matching}");
        }
        assert!(!has_tag(&headers("if-none-match", "\"b\""), "\"a\""));
    }
}
