//! Limits on connections: how many are served at once, and how many more are held by requests that last.

use std::sync::Arc;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Files that a request may hold open: its socket, an input, and a folder and a file for an output that is
/// tried out.
const FILES_PER_CONNECTION: usize = 4;
/// With fewer connections, probes and a browser's page would be in each other's way.
const LEAST_CONNECTIONS: usize = 16;
/// The part of the connections that returning ones leave free, so that clients who were all waiting for
/// the same task do not keep new ones out when it ends.
const SPARE_PART: usize = 8;

/// Number of clients served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientLimits {
    /// Connections. More wait in the kernel's queue.
    pub(crate) connections: usize,
    /// Event streams. More are refused.
    pub(crate) streams: usize,
    /// Requests that wait for the end of a task. More are refused.
    pub(crate) waits: usize,
}

impl ClientLimits {
    const MOST: Self = Self { connections: 1024, streams: 3072, waits: 2048 };
    /// Files that the most clients can use.
    pub(crate) const MOST_FILES: usize =
        Self::MOST.connections * FILES_PER_CONNECTION + Self::MOST.streams + Self::MOST.waits;
    /// With fewer files there is no use in serving.
    pub(crate) const LEAST_FILES: usize = 2 * LEAST_CONNECTIONS * FILES_PER_CONNECTION;

    /// Shares out the files that clients may use: half for connections, the rest three to two for streams
    /// and waits.
    pub(crate) fn within(files: usize) -> Self {
        let connections = Self::MOST.connections.min(files / 2 / FILES_PER_CONNECTION);
        let rest = files - connections * FILES_PER_CONNECTION;
        let streams = Self::MOST.streams.min(rest / 5 * 3);
        Self { connections, streams, waits: Self::MOST.waits.min(rest - streams) }
    }
}

/// Slots of all connections.
///
/// A connection has one slot from `accept` to its end: at first one of `connections`. While its request
/// waits it holds one of `waits` instead, and for an event stream one of the manager's, so that neither
/// keeps new clients out. It acquires the next slot before it releases the last, so there are never more
/// connections than slots.
#[derive(Debug)]
pub(super) struct Slots {
    limits: ClientLimits,
    connections: Arc<Semaphore>,
    waits: Arc<Semaphore>,
}

impl Slots {
    pub(super) fn new(limits: ClientLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            connections: Arc::new(Semaphore::new(limits.connections)),
            waits: Arc::new(Semaphore::new(limits.waits)),
        })
    }

    /// Slot for a new connection, once one is free.
    pub(super) async fn connection(self: &Arc<Self>) -> ConnectionSlot {
        let permit = Arc::clone(&self.connections).acquire_owned().await;
        let permit = permit.expect("the semaphore of the connections is never closed");
        let held = Held { of: Of::Connections, _permit: permit };
        ConnectionSlot { held: Arc::new(Mutex::new(held)), slots: Arc::clone(self) }
    }
}

/// The slot of one connection. All clones are the same slot.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSlot {
    held: Arc<Mutex<Held>>,
    slots: Arc<Slots>,
}

#[derive(Debug)]
struct Held {
    of: Of,
    _permit: OwnedSemaphorePermit,
}

/// The set that a slot belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Connections,
    Waits,
    Streams,
}

impl ConnectionSlot {
    /// The request begins to wait.
    pub(super) fn wait(&self) -> Result<(), ApiError> {
        let permit = Arc::clone(&self.slots.waits).try_acquire_owned();
        let permit = permit.map_err(|_| ApiError::too_many_waits(self.slots.limits.waits))?;
        *self.held.lock() = Held { of: Of::Waits, _permit: permit };
        Ok(())
    }

    /// The connection becomes an event stream, until it ends.
    pub(super) fn stream(&self, permit: OwnedSemaphorePermit) {
        *self.held.lock() = Held { of: Of::Streams, _permit: permit };
    }

    /// The request has been answered. If it waited, the connection returns to the others; if there is
    /// no room among them, it ends with this response and holds its slot until then.
    pub(super) fn answered(&self, response: &mut Response) {
        let mut held = self.held.lock();
        if held.of != Of::Waits {
            return;
        }
        let connections = &self.slots.connections;
        let spare = self.slots.limits.connections / SPARE_PART;
        let room = connections.available_permits() > spare;
        match room.then(|| Arc::clone(connections).try_acquire_owned()) {
            Some(Ok(permit)) => *held = Held { of: Of::Connections, _permit: permit },
            Some(Err(_)) | None => {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
        }
    }
}
