//! Query parameters and the few request headers that say what to answer.

use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, StatusCode, header};
use serde_json::Value;

use super::error::ApiError;
use crate::manager::{ListFilter, MAX_TAGS};
use crate::task::{Fault, TaskId, TaskStatus, TaskType, Timestamp};

/// Tasks in a page of a list unless a request says otherwise.
pub(crate) const DEFAULT_LIMIT: usize = 100;
/// Most tasks in a page of a list.
pub(crate) const MAX_LIMIT: usize = 1000;
/// The longest that `wait` holds a request.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The task that the path names.
pub(super) struct IdFromPath(pub(super) TaskId);

impl<S: Send + Sync> FromRequestParts<S> for IdFromPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let text = params.ok().and_then(|params| params.iter().next().map(|(_, id)| id.to_owned()));
        match text.unwrap_or_default() {
            text if let Ok(id) = text.parse() => Ok(Self(id)),
            text => Err(ApiError::new(
                StatusCode::NOT_FOUND,
                format!("Task not found: `{text}` is no task id, expected a UUID"),
            )),
        }
    }
}

/// Name and value of each query parameter, in order. Left out is `_`, by which pages keep caches away.
pub(super) fn pairs(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.into_owned().filter(|(name, _)| name != "_").collect()
}

/// Refuses query parameters, for routes that have none: a filter that is ignored does harm.
pub(super) struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let pairs = parts.uri.query().map(|query| pairs(Some(query))).unwrap_or_default();
        let faults: Vec<_> = pairs.iter().map(|(name, _)| unknown(name, &[])).collect();
        if faults.is_empty() { Ok(Self) } else { Err(ApiError::invalid(faults)) }
    }
}

/// The filter that a list's query asks for.
pub(super) fn list_filter(pairs: &[(String, String)]) -> Result<ListFilter, ApiError> {
    let mut filter = ListFilter { limit: DEFAULT_LIMIT, ..ListFilter::default() };
    let mut faults = Vec::new();
    let known = [
        "status",
        "task_type",
        "created_after",
        "created_before",
        "limit",
        "retried",
        "cursor",
        "tag.KEY",
    ];
    for (name, value) in pairs {
        let mut fault = |msg: String| faults.push(Fault::value(&["query", name], msg, &**value));
        let time = "expected a time such as 2026-01-31T15:30:00Z";
        match name.as_str() {
            "status" => names(value, |name| match TaskStatus::from_str(name) {
                Ok(status) => push_new(&mut filter.statuses, status),
                Err(_) => {
                    let known = TaskStatus::ALL.iter().map(|status| status.name());
                    faults.push(Fault::choice(&["query", "status"], "status", name, known));
                }
            }),
            "task_type" => names(value, |name| match TaskType::from_name(name) {
                Some(task_type) => push_new(&mut filter.task_types, task_type),
                None => {
                    let known = TaskType::names();
                    faults.push(Fault::choice(&["query", "task_type"], "task type", name, known));
                }
            }),
            "created_after" => match Timestamp::from_str(value) {
                Ok(at) => filter.created_after = Some(at),
                Err(error) => fault(format!("{time}: {error}")),
            },
            "created_before" => match Timestamp::from_str(value) {
                Ok(at) => filter.created_before = Some(at),
                Err(error) => fault(format!("{time}: {error}")),
            },
            "limit" => match value.parse() {
                Ok(limit @ 1..=MAX_LIMIT) => filter.limit = limit,
                _ => fault(format!("expected a whole number from 1 to {MAX_LIMIT}")),
            },
            "retried" => match value.parse() {
                Ok(retried) => filter.retried = Some(retried),
                Err(_) => fault("expected true or false".to_owned()),
            },
            "cursor" => match value.parse() {
                Ok(cursor) => filter.cursor = Some(cursor),
                Err(()) => {
                    fault("expected a cursor from the Link header of the page before".to_owned());
                }
            },
            name if let Some(key) = name.strip_prefix("tag.") => {
                push_new(&mut filter.tags, (key.to_owned(), value.clone()));
                if filter.tags.len() > MAX_TAGS {
                    let msg =
                        format!("expected at most {MAX_TAGS} tags, which is what a task can have");
                    return Err(ApiError::invalid(vec![Fault::value(
                        &["query", name],
                        msg,
                        &**value,
                    )]));
                }
            }
            _ => faults.push(unknown(name, &known)),
        }
    }
    if faults.is_empty() { Ok(filter) } else { Err(ApiError::invalid(faults)) }
}

/// The filter of a change of many tasks. An empty one is refused: it would mean everything.
pub(super) fn bulk_filter(pairs: &[(String, String)]) -> Result<ListFilter, ApiError> {
    let filter = list_filter(pairs)?;
    refuse(pairs, &["limit", "cursor"], "one request is for all tasks that match")?;
    refuse(
        pairs,
        &["retried"],
        "a task that was retried is never retried or cancelled by a filter",
    )?;
    if pairs.is_empty() {
        let msg = "say which tasks, such as status=pending or task_type=tokenize";
        let fault = Fault::value(&["query", "status"], msg, Value::Null);
        return Err(ApiError::invalid(vec![fault]));
    }
    Ok(filter)
}

/// The filter of a stream.
pub(super) fn event_filter(pairs: &[(String, String)]) -> Result<ListFilter, ApiError> {
    let filter = list_filter(pairs)?;
    let msg = "a stream has no pages: it goes on from the Last-Event-ID header";
    refuse(pairs, &["cursor"], msg)?;
    refuse(pairs, &["retried"], "a stream tells how tasks run, and a retry is a task of its own")?;
    Ok(filter)
}

/// Refuses parameters of lists that a route cannot take.
fn refuse(pairs: &[(String, String)], names: &[&str], msg: &str) -> Result<(), ApiError> {
    match pairs.iter().find(|(name, _)| names.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, value)) => {
            let fault = Fault::value(&["query", name], msg, value.as_str());
            Err(ApiError::invalid(vec![fault]))
        }
    }
}

/// Whether `?dry_run=true` stands there.
pub(super) fn dry_run(query: Option<&str>) -> Result<bool, ApiError> {
    let mut dry_run = false;
    for (name, value) in pairs(query) {
        let fault = match (name.as_str(), value.as_str()) {
            ("dry_run", "true" | "false") => {
                dry_run = value == "true";
                continue;
            }
            ("dry_run", _) => Fault::value(&["query", "dry_run"], "expected true or false", value),
            _ => unknown(&name, &["dry_run"]),
        };
        return Err(ApiError::invalid(vec![fault]));
    }
    Ok(dry_run)
}

/// A query parameter that this route does not have.
fn unknown(name: &str, known: &[&str]) -> Fault {
    Fault::choice(&["query", name], "query parameter", name, known.iter().copied())
}

/// The comma-separated names in a value.
fn names(value: &str, take: impl FnMut(&str)) {
    value.split(',').map(str::trim).for_each(take);
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// The `Link` to the next page: the same query with another cursor.
pub(super) fn next_link(pairs: &[(String, String)], cursor: impl ToString) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.iter().filter(|(name, _)| name != "cursor"));
    query.append_pair("cursor", &cursor.to_string());
    format!("</tasks?{}>; rel=\"next\"", query.finish())
}

/// Whether a request may ask to wait, by a look that costs less than reading its query.
pub(super) fn may_wait<B>(request: &Request<B>) -> bool {
    request.uri().path().starts_with("/tasks/")
        && (request.uri().query().is_some() || request.headers().contains_key("prefer"))
}

/// How long to hold the answer, from `?wait=` or, if that is not there, `Prefer: wait=`
/// (RFC 7240, section 4.3). A preference that makes no sense is ignored, as that RFC has it.
pub(super) fn wait(query: Option<&str>, headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let mut asked = None;
    for (name, value) in pairs(query) {
        if name != "wait" {
            return Err(ApiError::invalid(vec![unknown(&name, &["wait"])]));
        }
        asked = Some(seconds(&value).ok_or_else(|| {
            let msg = "expected a number of seconds, 0 or more";
            ApiError::invalid(vec![Fault::value(&["query", "wait"], msg, value)])
        })?);
    }
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
    // `clamp` leaves NaN, which the conversion refuses.
    let capped = seconds.min(MAX_WAIT.as_secs_f64());
    Duration::try_from_secs_f64(capped).ok().filter(|_| !seconds.is_nan())
}

/// Whether the client already has what is tagged `tag` (RFC 9110, section 13.1.2).
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
