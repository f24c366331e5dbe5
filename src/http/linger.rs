//! Lingering close: a client that is still sending its body gets to see why it was refused.
//!
//! Closing a socket with unread bytes resets the connection, and the client's system throws the answer
//! away. So what is left of a body is read, and forgotten, for a bounded time and amount.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, header};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Most bytes of a refused body that are read.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Longest time that a refused body is read.
const MAX_TIME: Duration = Duration::from_secs(5);
/// Refused bodies that are read at once. Beyond that a connection is closed without.
const MAX_BODIES: usize = 64;
/// A client finishes a body of this size sooner than it opens another connection.
const SMALL_BYTES: u64 = 64 * 1024;

static BODIES: Semaphore = Semaphore::const_new(MAX_BODIES);

/// The body of a request. What is unread when it is dropped is read in the background.
#[derive(Debug)]
struct LingeringBody {
    /// Taken when it is dropped.
    body: Option<Incoming>,
    read: Read,
    /// Set if much of it is unread.
    unread: Arc<AtomicBool>,
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// The client sends nothing before it is told to (RFC 9110, section 10.1.1).
    OnRequest,
    Some,
    All,
}

/// Answers a request, and tells the client to stop sending if `answer` did not read all of the body.
pub(super) async fn answer<F: Future<Output = Response>>(
    request: Request<Incoming>,
    answer: impl FnOnce(Request<Body>) -> F,
) -> Response {
    let unread = (!request.body().is_end_stream()).then(Arc::<AtomicBool>::default);
    let request = match &unread {
        None => request.map(Body::new),
        Some(unread) => {
            let read = match request.headers().contains_key(header::EXPECT) {
                true => Read::OnRequest,
                false => Read::Some,
            };
            let unread = Arc::clone(unread);
            request.map(|body| Body::new(LingeringBody { body: Some(body), read, unread }))
        }
    };
    let mut response = answer(request).await;
    if unread.is_some_and(|unread| unread.load(Ordering::Relaxed)) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl HttpBody for LingeringBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        self.read = match &frame {
            Poll::Ready(None | Some(Err(_))) => Read::All,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => Read::Some,
        };
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for LingeringBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if self.read == Read::All || body.is_end_stream() {
            return;
        }
        let large = body.size_hint().upper().is_none_or(|bytes| bytes > SMALL_BYTES);
        self.unread.store(large, Ordering::Relaxed);
        if self.read == Read::Some
            && let Ok(turn) = BODIES.try_acquire()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                // hyper closes the connection if there is more.
                let _ = timeout(MAX_TIME, read(body)).await;
                drop(turn);
            });
        }
    }
}

async fn read(mut body: Incoming) {
    let mut bytes = 0;
    while bytes < MAX_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}
