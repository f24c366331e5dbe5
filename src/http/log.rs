//! The log of a task, as text: as it is now, or followed until the task has ended.

use std::io;

use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream};

use super::connections::ConnectionSlot;
use super::error::ApiError;
use super::query::{self, IdFromPath};
use crate::manager::{Followed, LogFollower, LogRange, TaskManager};

/// Suffix of the paths of logs.
const PATH: &str = "/log";
/// Largest number of last lines.
const MAX_TAIL: usize = 100_000;
/// Keeps a log from loading or running anything.
const POLICY: &str = "default-src 'none'; sandbox; frame-ancestors 'none'";

/// Get the log of a task.
///
/// Lines of text, each with a time, its source and what was said: the first 256 KiB and the last megabyte of an
/// attempt. Empty if the attempt has said nothing. With `follow` the response goes on until the task has ended.
#[utoipa::path(
    get, path = "/tasks/{task_id}/log", tag = "tasks", operation_id = "log",
    params(
        IdFromPath,
        ("attempt" = Option<u32>, Query, minimum = 1, description = "Number of the attempt, by default the last one"),
        ("tail" = Option<u32>, Query, maximum = 100_000, description = "Only that many last lines"),
        ("follow" = Option<bool>, Query,
         description = "Send further lines until the task has ended, or the given attempt"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/plain", description = "The log"),
        (status = 404, body = super::error::ErrorBody, description = "Task not found, or no such attempt"),
    )
)]
pub(super) async fn get(
    State(manager): State<TaskManager>,
    IdFromPath(id): IdFromPath,
    RawQuery(query): RawQuery,
    slot: Option<Extension<ConnectionSlot>>,
) -> Result<Response, ApiError> {
    let Asked { range, follow } = asked(query.as_deref())?;
    let followed = match follow {
        true => manager.follow_log(id, range).await?,
        false => Followed::Ended(manager.log(id, range).await?),
    };
    let mut response = match followed {
        Followed::Ended(text) => text.into_response(),
        Followed::Unfinished(mut follower) => {
            if let Some(Extension(slot)) = slot
                && let Some(place) = follower.place.take()
            {
                slot.stream(place);
            }
            let mut response = Body::from_stream(lines(follower)).into_response();
            live(response.headers_mut());
            response
        }
    };
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "private, no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Headers of a stream.
fn live(headers: &mut HeaderMap) {
    // Keeps nginx from buffering the stream.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    // A connection that holds a stream's slot must not serve further requests.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

fn lines(follower: LogFollower) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(follower, |mut follower| async move {
        Ok(follower.next().await?.map(|lines| (lines, follower)))
    })
}

/// Returns whether a request, by its path and query, follows a log.
pub(super) fn follows(target: &str) -> bool {
    let Some((path, query)) = target.split_once('?') else { return false };
    path.ends_with(PATH) && asked(Some(query)).is_ok_and(|asked| asked.follow)
}

#[derive(Default)]
struct Asked {
    range: LogRange,
    follow: bool,
}

fn asked(query: Option<&str>) -> Result<Asked, ApiError> {
    let mut asked = Asked::default();
    for (name, value) in query::pairs(query) {
        let expected = |what: &str| query::invalid(&name, format!("expected {what}"), &*value);
        match name.as_str() {
            "attempt" => {
                let attempt = value.parse().map_err(|_| expected("the number of an attempt"))?;
                asked.range.attempt = Some(attempt);
            }
            "tail" => match value.parse() {
                Ok(tail @ 0..=MAX_TAIL) => asked.range.tail = Some(tail),
                _ => return Err(expected(&format!("a whole number from 0 to {MAX_TAIL}"))),
            },
            "follow" => asked.follow = value.parse().map_err(|_| expected("true or false"))?,
            _ => {
                let known = ["attempt", "tail", "follow"];
                return Err(ApiError::invalid(vec![query::unknown(&name, &known)]));
            }
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_followed_log_is_a_stream() {
        for stream in ["/tasks/1/log?follow=true", "/tasks/1/log?tail=3&follow=true&_=7"] {
            assert!(follows(stream), "{stream}");
        }
        for other in [
            "/tasks/1/log",
            "/tasks/1/log?follow=false",
            "/tasks/1/log?follow=yes",
            "/tasks/1?follow=true",
            "/tasks?a=/log?follow=true",
        ] {
            assert!(!follows(other), "{other}");
        }
    }
}
