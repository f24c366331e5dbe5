//! Event streams as Server-Sent Events (HTML standard, section "Server-sent events").

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};

use super::connections::ConnectionSlot;
use super::error::ApiError;
use super::log;
use super::query::{self, FilterParams, IdFromPath, NoQuery};
use crate::manager::{Event, EventId, EventKind, Interest, Subscription, TaskManager};

/// Suffix of the paths of event streams.
const PATH: &str = "/events";
/// Suffix of the id of a task's last event.
const END: &str = "-end";
/// Interval of comments on an idle stream, which keep proxies from closing the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Pause of clients before they reconnect.
const RECONNECT: Duration = Duration::from_secs(1);

/// One event of a stream.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "documents what `stream` yields")]
struct StreamEvent {
    /// `state`, `progress`, or `reset` if events were missed.
    event: String,
    /// The task as JSON, as `GET /tasks/{task_id}` returns it; `{}` for `reset`.
    data: String,
    /// Value to send as `Last-Event-ID`.
    id: Option<String>,
    /// Milliseconds to wait before reconnecting.
    retry: Option<u32>,
}

/// Watch a task.
///
/// Server-Sent Events: `state` with the current state and at each change of status, and `progress` at most
/// ten times a second. The data is the task. The stream ends with the task.
#[utoipa::path(
    get, path = "/tasks/{task_id}/events", tag = "tasks", operation_id = "task_events",
    params(
        IdFromPath,
        ("Last-Event-ID" = Option<String>, Header,
         description = "Resume after this event; if events were missed, the stream restarts with `reset`"),
    ),
    responses(
        (status = 200, body = StreamEvent, content_type = "text/event-stream", description = "The events"),
        (status = 204, description = "The task has ended, and the client has its last event"),
    )
)]
pub(super) async fn of_task(
    State(manager): State<TaskManager>,
    IdFromPath(id): IdFromPath,
    _: NoQuery,
    slot: Option<Extension<ConnectionSlot>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if last_id(&headers).is_some_and(|id| id.ends_with(END)) {
        let known = manager.get(id).await?.is_some();
        // Stops an EventSource from reconnecting.
        let ended = || StatusCode::NO_CONTENT.into_response();
        return known.then(ended).ok_or_else(ApiError::task_not_found);
    }
    let events = manager.watch(Interest::Task(id), last_seen(&headers)).await?;
    Ok(answer(events, slot, |event| event.info.status.is_final()))
}

/// Watch many tasks.
///
/// Sends the newest matching tasks as they are, then each change of a task that matches or did before the
/// change.
#[utoipa::path(
    get, path = "/events", tag = "tasks", operation_id = "events",
    params(
        FilterParams,
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
         description = "Number of tasks to start with, 100 by default"),
        ("Last-Event-ID" = Option<String>, Header,
         description = "Resume after this event; if events were missed, the stream restarts with `reset`"),
    ),
    responses((
        status = 200, body = StreamEvent, content_type = "text/event-stream", description = "The events"
    ))
)]
pub(super) async fn of_many(
    State(manager): State<TaskManager>,
    RawQuery(query): RawQuery,
    slot: Option<Extension<ConnectionSlot>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let filter = query::event_filter(&query::pairs(query.as_deref()), manager.registry())?;
    let events = manager.watch(Interest::Matching(filter), last_seen(&headers)).await?;
    Ok(answer(events, slot, |_| false))
}

/// Returns whether the response to a request is a stream: of events, or of a log.
pub(super) fn is_stream(uri: &Uri) -> bool {
    uri.path().ends_with(PATH)
        || uri.path_and_query().is_some_and(|target| log::follows(target.as_str()))
}

fn last_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default())
}

/// Last event that the client has seen; `None` for a new client.
fn last_seen(headers: &HeaderMap) -> Option<EventId> {
    last_id(headers).map(|id| id.parse().unwrap_or(EventId::UNKNOWN))
}

fn answer(
    mut events: Subscription,
    slot: Option<Extension<ConnectionSlot>>,
    is_last: fn(&Event) -> bool,
) -> Response {
    if let Some(Extension(slot)) = slot
        && let Some(place) = events.place.take()
    {
        slot.stream(place);
    }
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let headers = [
        // Keeps nginx from buffering the stream.
        (HeaderName::from_static("x-accel-buffering"), "no"),
        // A connection that holds a stream's slot must not serve further requests.
        (header::CONNECTION, "close"),
    ];
    (headers, Sse::new(stream(events, is_last)).keep_alive(keep_alive)).into_response()
}

fn stream(
    events: Subscription,
    is_last: fn(&Event) -> bool,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let first = sse::Event::default();
    let first = if events.gap { first.event("reset").data("{}") } else { first };
    let rest = stream::unfold(Some(events), move |events| async move {
        let mut events = events?;
        let event = events.next().await?;
        let name = match event.kind {
            EventKind::State => "state",
            EventKind::Progress => "progress",
        };
        let mut message = sse::Event::default().event(name).data(event.json());
        let last = is_last(&event);
        if let Some(id) = events.id(&event) {
            message = message.id(if last { format!("{id}{END}") } else { id.to_string() });
        }
        Some((Ok(message), (!last).then_some(events)))
    });
    stream::iter([Ok(first.retry(RECONNECT))]).chain(rest)
}
