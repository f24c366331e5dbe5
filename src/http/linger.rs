//! Lingering close: lets a client that is still sending its body see the error response.
//!
//! Closing a socket with unread bytes resets the connection, and the client's kernel then discards the
//! response. So the rest of a body is read and discarded, up to a limit of time and size.

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

/// Maximum number of bytes to discard.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Maximum time to discard them.
const MAX_TIME: Duration = Duration::from_secs(5);
/// Maximum number of bodies discarded at once. Further connections are closed without lingering.
const MAX_BODIES: usize = 64;
/// Up to this size, finishing the body is cheaper for a client than opening another connection.
const SMALL_BYTES: u64 = 64 * 1024;

static BODIES: Semaphore = Semaphore::const_new(MAX_BODIES);

/// Request body whose unread rest is read in the background when it is dropped.
#[derive(Debug)]
struct LingeringBody {
    /// `None` only while being dropped.
    body: Option<Incoming>,
    read: Read,
    /// Set on drop if a large part may be unread; read by [`answer`] on the same task.
    unread: Arc<AtomicBool>,
}

/// Part of a body that has been read.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// Nothing, and the client waits for `100 Continue` (RFC 9110, section 10.1.1).
    OnRequest,
    Some,
    All,
}

/// Answers a request, with `Connection: close` if `answer` leaves a large part of the body unread.
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
            && let Ok(permit) = BODIES.try_acquire()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                // hyper closes the connection if there is still more.
                let _ = timeout(MAX_TIME, read(body)).await;
                drop(permit);
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
