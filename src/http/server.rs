//! The connection loop: a bounded number of clients, none of which may be slow for ever.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::pace::{self, Paced};
use super::{Api, events, linger};

const MAX_CONNECTIONS: usize = 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
#[cfg(target_os = "linux")]
const WRITE_TIMEOUT_MILLIS: u32 = 30_000;
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// How long requests may go on after the server was told to stop.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long to leave `accept` alone after it failed, say for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The place of a connection among [`MAX_CONNECTIONS`]. An event stream gives it back for one among
/// the streams: they last, and have a limit of their own.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSlot(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl ConnectionSlot {
    /// The other place is kept for as long as the connection.
    pub(super) fn exchange(&self, other: OwnedSemaphorePermit) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
    }
}

/// Serves until `stop` is cancelled, then lets requests under way end for a moment.
pub(crate) async fn serve(listener: TcpListener, api: Api, stop: CancellationToken) {
    let api = Arc::new(api);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = GracefulShutdown::new();
    loop {
        // First a slot, then a client: those beyond the limit wait in the kernel's queue.
        let slot = Arc::clone(&slots).acquire_owned();
        let accepted = async { (slot.await, listener.accept().await) };
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
        let slot = ConnectionSlot(Arc::new(Mutex::new(slot.ok())));
        let service = service_fn({
            let (api, slot) = (Arc::clone(&api), slot.clone());
            move |mut request: Request<Incoming>| {
                let api = Arc::clone(&api);
                pace.begin(request.uri().path());
                // What is attached to a request costs more than this look.
                if request.uri().path().ends_with(events::PATH) {
                    request.extensions_mut().insert(slot.clone());
                }
                async move {
                    let answer = async |request| api.answer(request).await;
                    Ok::<_, Infallible>(linger::answer(request, answer).await)
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
