//! Limits on connections: how many are served at once, and how many more are held by requests that last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderValue, header};
use axum::response::Response;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Connections served at once.
const MAX_CONNECTIONS: usize = 1024;
/// Requests that wait for the end of a task. More are refused.
const MAX_WAITS: usize = 2048;
/// The part of the connections that returning ones leave free, so that clients who were all waiting for
/// the same task do not keep new ones out when it ends.
const SPARE_PART: usize = 8;

/// Slots of all connections.
///
/// A connection has one slot from `accept` to its end: at first one of `connections`. While its request
/// waits it holds one of `waits` instead, and for an event stream one of the manager's, so that neither
/// keeps new clients out. It acquires the next slot before it releases the last, so there are never more
/// connections than slots.
#[derive(Debug)]
pub(super) struct Slots {
    connections: Arc<Semaphore>,
    waits: Arc<Semaphore>,
}

impl Slots {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            waits: Arc::new(Semaphore::new(MAX_WAITS)),
        })
    }

    /// Slot for a new connection, once one is free.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<ConnectionSlot, AcquireError> {
        let permit = Arc::clone(&self.connections).acquire_owned().await?;
        let held = Held { of: Of::Connections, _permit: permit };
        Ok(ConnectionSlot { held: Arc::new(Mutex::new(held)), slots: Arc::clone(self) })
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
        let permit = permit.map_err(|_| ApiError::too_many_waits(MAX_WAITS))?;
        *self.held() = Held { of: Of::Waits, _permit: permit };
        Ok(())
    }

    /// The connection becomes an event stream, until it ends.
    pub(super) fn stream(&self, permit: OwnedSemaphorePermit) {
        *self.held() = Held { of: Of::Streams, _permit: permit };
    }

    /// The request has been answered. If it waited, the connection returns to the others; if there is
    /// no room among them, it ends with this response and holds its slot until then.
    pub(super) fn answered(&self, response: &mut Response) {
        let mut held = self.held();
        if held.of != Of::Waits {
            return;
        }
        let connections = &self.slots.connections;
        let room = connections.available_permits() > MAX_CONNECTIONS / SPARE_PART;
        match room.then(|| Arc::clone(connections).try_acquire_owned()) {
            Some(Ok(permit)) => *held = Held { of: Of::Connections, _permit: permit },
            Some(Err(_)) | None => {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
