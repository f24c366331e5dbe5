//! The accept loop: serves a bounded number of connections, each with timeouts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::connections::{ClientLimits, ConnectionSlot, Slots};
use super::pace::{self, Paced};
use super::{Api, events, linger, query};

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
#[cfg(target_os = "linux")]
const WRITE_TIMEOUT_MILLIS: u32 = 30_000;
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Time for requests in flight when the server stops.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);
/// Pause after a failed `accept`, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled, then gives requests in flight a moment to end.
pub(crate) async fn serve(
    listener: TcpListener,
    api: Api,
    limits: ClientLimits,
    stop: CancellationToken,
) {
    let api = Arc::new(api);
    let slots = Slots::new(limits);
    let connections = GracefulShutdown::new();
    loop {
        // Slot first: clients beyond the limit wait in the kernel's queue.
        let accepted = async { (slots.connection().await, listener.accept().await) };
        let (slot, stream) = tokio::select! {
            () = stop.cancelled() => break,
            (slot, accepted) = accepted => match accepted {
                Ok((stream, _)) => (slot, stream),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let connection = connections.watch(connection(stream, &slot, &api));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connections.shutdown()).await;
}

fn connection(
    stream: TcpStream,
    slot: &ConnectionSlot,
    api: &Arc<Api>,
) -> impl GracefulConnection<Error = hyper::Error> + use<> {
    // Responses are small, and waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    // Disconnects clients that stop reading, and frees what is buffered for them.
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, WRITE_TIMEOUT_MILLIS);
    let (stream, pace) = Paced::new(stream, pace::LIMITS);
    let service = service_fn({
        let (api, slot) = (Arc::clone(api), slot.clone());
        move |mut request: Request<Incoming>| {
            let api = Arc::clone(&api);
            pace.begin(request.uri());
            // Only if it may be needed: attaching it costs more than this check.
            let slot = may_last(&request).then(|| slot.clone());
            if let Some(slot) = &slot {
                request.extensions_mut().insert(slot.clone());
            }
            async move {
                let answer = async |request| api.answer(request).await;
                let mut response = linger::answer(request, answer).await;
                if let Some(slot) = slot {
                    slot.answered(&mut response);
                }
                Ok::<_, Infallible>(response)
            }
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}

/// Returns whether a request may hold its connection for long.
fn may_last<B>(request: &Request<B>) -> bool {
    events::is_stream(request.uri()) || query::may_wait(request)
}
