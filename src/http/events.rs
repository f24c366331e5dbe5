//! Event streams over HTTP: Server-Sent Events.
//! Source: the HTML standard, section "Server-sent events".

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};

use super::connections::ConnectionSlot;
use super::error::{ApiError, ErrorBody};
use super::query::{self, IdFromPath, NoQuery};
use crate::manager::{Event, EventId, EventKind, Interest, Subscription, TaskManager};
use crate::task::{TaskStatus, TaskType};

/// How the paths of event streams end.
pub(super) const PATH: &str = "/events";
/// Marks the id of the event with which a task ends.
const END: &str = "-end";
/// How often something is sent where nothing happens, so that whoever is in between keeps the
/// connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);

/// One event of a stream.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "says in the OpenAPI document what `stream` makes")]
struct StreamEvent {
    /// `state`, `progress`, or `reset` if events were missed.
    event: String,
    /// The task as `GET /tasks/{task_id}` has it, as JSON; `{}` for `reset`.
    data: String,
    /// For `Last-Event-ID`.
    id: Option<String>,
    /// Milliseconds to wait before connecting again.
    retry: Option<u32>,
}

/// Watch a task.
///
/// Server-Sent Events: `state` when the task changes its status, and at once as it stands; `progress`
/// at most ten times a second. The data is the task. The stream ends with the task.
#[utoipa::path(
    get, path = "/tasks/{task_id}/events", tag = "tasks", operation_id = "task_events",
    params(
        ("task_id" = String, Path, description = "Names the task"),
        ("Last-Event-ID" = Option<String>, Header,
         description = "Goes on behind this event; if it is not known any more, an event `reset` says so and the stream begins anew"),
    ),
    responses(
        (status = 200, body = StreamEvent, content_type = "text/event-stream", description = "The events"),
        (status = 204, description = "The task has ended, and the client has seen all of it"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
        (status = 404, body = ErrorBody, description = "There is no such task"),
        (status = 503, body = ErrorBody, description = "The server is shutting down, or too many streams are open"),
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
        // What tells a browser not to come back.
        let over = || StatusCode::NO_CONTENT.into_response();
        return known.then(over).ok_or_else(ApiError::task_not_found);
    }
    let events = manager.watch(Interest::Task(id), last_seen(&headers)).await?;
    Ok(answer(events, slot, |event| event.info.status.is_final()))
}

/// Watch many tasks.
///
/// The newest tasks that match, as they stand, and then each change of a task that matches or did
/// until then. The parameters are those of the list; `limit` is for the beginning.
#[utoipa::path(
    get, path = "/events", tag = "tasks", operation_id = "events",
    params(
        ("status" = Option<Vec<TaskStatus>>, Query, description = "One status or several, also with commas"),
        ("task_type" = Option<Vec<TaskType>>, Query, description = "One type or several, also with commas"),
        ("created_after" = Option<String>, Query, format = "date-time",
         description = "Submitted at this time or later (RFC 3339)"),
        ("created_before" = Option<String>, Query, format = "date-time",
         description = "Submitted before this time (RFC 3339)"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
         description = "Tasks at the beginning; 100 if not given"),
        ("tag.KEY" = Option<String>, Query, description = "Has this value for the tag KEY"),
        ("Last-Event-ID" = Option<String>, Header,
         description = "Goes on behind this event; if it is not known any more, an event `reset` says so and the stream begins anew"),
    ),
    responses(
        (status = 200, body = StreamEvent, content_type = "text/event-stream", description = "The events"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
        (status = 422, body = ErrorBody, description = "The query makes no sense"),
        (status = 503, body = ErrorBody, description = "The server is shutting down, or too many streams are open"),
    )
)]
pub(super) async fn of_many(
    State(manager): State<TaskManager>,
    RawQuery(query): RawQuery,
    slot: Option<Extension<ConnectionSlot>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let filter = query::event_filter(&query::pairs(query.as_deref()))?;
    let events = manager.watch(Interest::Matching(filter), last_seen(&headers)).await?;
    Ok(answer(events, slot, |_| false))
}

fn last_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default())
}

/// What the client has seen already; `None` for a client that begins.
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
        // Proxies such as nginx would wait for more otherwise.
        (HeaderName::from_static("x-accel-buffering"), "no"),
        // No other request may come on a connection that has the slot of a stream.
        (header::CONNECTION, "close"),
    ];
    (headers, Sse::new(stream(events, is_last)).keep_alive(keep_alive)).into_response()
}

/// Where a stream is.
enum Stage {
    Begin,
    Told,
    Last,
}

fn stream(
    events: Subscription,
    is_last: fn(&Event) -> bool,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    stream::unfold((events, Stage::Begin), move |(mut events, stage)| async move {
        let (message, stage) = match stage {
            Stage::Begin if events.gap => {
                (sse::Event::default().event("reset").data("{}").retry(RECONNECT), Stage::Told)
            }
            Stage::Begin => (sse::Event::default().retry(RECONNECT), Stage::Told),
            Stage::Told => {
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
                (message, if last { Stage::Last } else { Stage::Told })
            }
            Stage::Last => return None,
        };
        Some((Ok(message), (events, stage)))
    })
}
