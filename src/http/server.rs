//! The connection loop: a bounded number of clients, none of which may be slow for ever.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connections::{ClientLimits, Slots};
use super::pace::{self, Paced};
use super::{Api, events, linger, query};

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
#[cfg(target_os = "linux")]
const WRITE_TIMEOUT_MILLIS: u32 = 30_000;
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// How long requests may go on after the server was told to stop.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long to leave `accept` alone after it failed, say for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled, then lets requests under way end for a moment.
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
        // First a slot, then a client: those beyond the limit wait in the kernel's queue.
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
        // Answers are small and awaited: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        // A client that does not take its answer is let go of, with what is buffered for it.
        #[cfg(target_os = "linux")]
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, WRITE_TIMEOUT_MILLIS);
        let (stream, pace) = Paced::new(stream, pace::LIMITS);
        let service = service_fn({
            let (api, slot) = (Arc::clone(&api), slot.clone());
            move |mut request: Request<Incoming>| {
                let api = Arc::clone(&api);
                pace.begin(request.uri().path());
                // Only where it may be needed: attaching it costs more than this check.
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
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection);
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

/// Whether a request may hold its connection for long.
fn may_last<B>(request: &Request<B>) -> bool {
    request.uri().path().ends_with(events::PATH) || query::may_wait(request)
}
