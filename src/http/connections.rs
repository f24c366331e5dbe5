//! Limits on connections, with separate ones for event streams and waiting requests.

use std::sync::Arc;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Files that a request may hold open: its socket, an input, and a folder and a file to check an output.
const FILES_PER_CONNECTION: usize = 4;
/// With fewer connections, health probes and a browser's page would block each other.
const LEAST_CONNECTIONS: usize = 16;
/// One in this many connections stays free when waits end, so that many waits for the same task cannot
/// lock out new clients when it ends.
const SPARE_PART: usize = 8;

/// Number of clients served at once, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientLimits {
    /// Connections. Further ones wait in the kernel's queue.
    pub(crate) connections: usize,
    /// Event streams. Further ones are rejected.
    pub(crate) streams: usize,
    /// Requests that wait for a task to end. Further ones are rejected.
    pub(crate) waits: usize,
}

impl ClientLimits {
    const MOST: Self = Self { connections: 1024, streams: 3072, waits: 2048 };
    /// Number of files that the largest limits can use.
    pub(crate) const MOST_FILES: usize =
        Self::MOST.connections * FILES_PER_CONNECTION + Self::MOST.streams + Self::MOST.waits;
    /// Number of files below which the server refuses to start.
    pub(crate) const LEAST_FILES: usize = 2 * LEAST_CONNECTIONS * FILES_PER_CONNECTION;

    /// Divides files between clients: half for connections, and the rest three to two for streams and waits.
    pub(crate) fn within(files: usize) -> Self {
        let connections = Self::MOST.connections.min(files / 2 / FILES_PER_CONNECTION);
        let rest = files - connections * FILES_PER_CONNECTION;
        let streams = Self::MOST.streams.min(rest / 5 * 3);
        Self { connections, streams, waits: Self::MOST.waits.min(rest - streams) }
    }
}

/// Slots of all connections.
///
/// A connection holds one slot from `accept` to its end: first one of `connections`, then one of `waits`
/// while its request waits, or one of the manager's for an event stream, so that neither keeps new clients
/// out. It acquires the next slot before releasing the last, so there are never more connections than
/// slots.
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

    /// Acquires a slot for a new connection, waiting for one if necessary.
    pub(super) async fn connection(self: &Arc<Self>) -> ConnectionSlot {
        let permit = Arc::clone(&self.connections).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let held = Arc::new(Mutex::new(Held::Connection(permit)));
        ConnectionSlot { held, slots: Arc::clone(self) }
    }
}

/// Slot of one connection, shared by all clones.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSlot {
    held: Arc<Mutex<Held>>,
    slots: Arc<Slots>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "dropping a permit frees the slot")]
enum Held {
    Connection(OwnedSemaphorePermit),
    Wait(OwnedSemaphorePermit),
    Stream(OwnedSemaphorePermit),
}

impl ConnectionSlot {
    /// Swaps the slot for one of the waits.
    pub(super) fn wait(&self) -> Result<(), ApiError> {
        let permit = Arc::clone(&self.slots.waits).try_acquire_owned();
        let permit = permit.map_err(|_| ApiError::too_many_waits(self.slots.limits.waits))?;
        *self.held.lock() = Held::Wait(permit);
        Ok(())
    }

    /// Swaps the slot for one of the event streams, until the connection ends.
    pub(super) fn stream(&self, permit: OwnedSemaphorePermit) {
        *self.held.lock() = Held::Stream(permit);
    }

    /// Swaps the slot of an answered wait back. If too few are free, the connection is closed after this
    /// response and keeps its slot until then.
    pub(super) fn answered(&self, response: &mut Response) {
        let mut held = self.held.lock();
        if !matches!(*held, Held::Wait(_)) {
            return;
        }
        let connections = &self.slots.connections;
        let spare = self.slots.limits.connections / SPARE_PART;
        if connections.available_permits() > spare
            && let Ok(permit) = Arc::clone(connections).try_acquire_owned()
        {
            *held = Held::Connection(permit);
        } else {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}
