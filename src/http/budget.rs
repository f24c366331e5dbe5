//! Memory budget shared by all responses that are being built or written.
//!
//! A client that reads slowly, or not at all, keeps its response in memory. Without a common limit a few
//! dozen of them hold gigabytes. A response counts until the socket has taken its last byte: hyper queues
//! the bytes of a body as they are, so the share of the budget is attached to the bytes themselves.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::ApiError;
use crate::manager::{MAX_PAGE_BYTES, MAX_RESULT_BYTES};

/// Memory of all responses together: a dozen of the largest pages, or tens of thousands of typical ones.
const TOTAL_KIB: u32 = 64 * 1024;
/// Responses up to this size do not count: at one per connection they take at most 16 MiB.
const FREE_BYTES: u64 = 16 * 1024;
/// Largest row of a list: its result, plus parameters, error, paths, message and tags.
const MAX_ROW_BYTES: usize = MAX_RESULT_BYTES + 256 * 1024;
/// Memory of a list while it is built: its records and their JSON. A page may exceed its limit by one row.
const LIST_KIB: u32 = (2 * (MAX_PAGE_BYTES + MAX_ROW_BYTES) / 1024) as u32;
/// Longest wait for a share of the budget.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Requests that may wait for a share. Further ones fail at once.
const MAX_WAITING: usize = 128;
/// Weight among the waiting requests of one whose response is already in memory, so at most 16 of them wait.
const BUILT_WEIGHT: u32 = 8;

/// Free memory in KiB, and permits to wait for it. All clones share both.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    max_wait: Duration,
}

/// Bytes of a response, with their share of the budget.
struct Held {
    bytes: Bytes,
    _share: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Budget {
    pub(super) fn new() -> Self {
        let free = Arc::new(Semaphore::new(TOTAL_KIB as usize));
        Self { free, waiting: Arc::new(Semaphore::new(MAX_WAITING)), max_wait: MAX_WAIT }
    }

    /// Reserves memory for the largest list, before the list is read.
    ///
    /// # Errors
    /// 503 if not enough memory becomes free in time.
    pub(super) async fn reserve_list(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.take(LIST_KIB, 1).await
    }

    /// Counts a large response until it is written, and returns the unused part of `reserved`.
    ///
    /// # Errors
    /// 503 if not enough memory becomes free in time.
    pub(super) async fn hold(
        &self,
        response: Response,
        reserved: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, ApiError> {
        let kib = size(&response).div_ceil(1024).min(TOTAL_KIB.into()) as u32;
        let share = match reserved {
            Some(mut share) if share.num_permits() >= kib as usize => {
                drop(share.split(share.num_permits() - kib as usize));
                share
            }
            too_small => {
                drop(too_small);
                self.take(kib, BUILT_WEIGHT).await?
            }
        };
        let share = Arc::new(share);
        let hold = move |bytes| Bytes::from_owner(Held { bytes, _share: Arc::clone(&share) });
        Ok(response.map(|body| Body::new(body.map_frame(move |frame| frame.map_data(&hold)))))
    }

    /// Takes a share, waiting for it if there are permits for `weight` waiting requests.
    async fn take(&self, kib: u32, weight: u32) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(share) = Arc::clone(&self.free).try_acquire_many_owned(kib) {
            return Ok(share);
        }
        let _permit = self.waiting.try_acquire_many(weight).map_err(|_| ApiError::no_memory())?;
        match timeout(self.max_wait, Arc::clone(&self.free).acquire_many_owned(kib)).await {
            Ok(Ok(share)) => Ok(share),
            Ok(Err(_)) | Err(_) => Err(ApiError::no_memory()),
        }
    }
}

/// Returns whether a request is for a list, whose size is unknown until it has been read.
pub(super) fn is_list(request: &Request) -> bool {
    request.uri().path() == "/tasks" && matches!(*request.method(), Method::GET | Method::HEAD)
}

/// Returns whether a response counts. Streams, whose size is unknown, have limits of their own.
pub(super) fn is_large(response: &Response) -> bool {
    size(response) > FREE_BYTES
}

fn size(response: &Response) -> u64 {
    response.body().size_hint().exact().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse;

    use super::*;

    fn answer(kib: usize) -> Response {
        Response::new(Body::from(vec![b'x'; kib * 1024]))
    }

    /// Bytes as the connection receives them.
    async fn written(response: Response) -> Bytes {
        let mut body = response.into_body();
        let frame = body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.is_none());
        frame.into_data().unwrap()
    }

    #[tokio::test]
    async fn a_share_lives_as_long_as_the_bytes() {
        let budget = Budget::new();
        let response = budget.hold(answer(1024), None).await.unwrap();
        let mut bytes = written(response).await;
        let rest = bytes.split_off(1024 * 1024 - 1);
        drop(bytes);
        assert_eq!(budget.free.available_permits(), TOTAL_KIB as usize - 1024);
        drop(rest);
        assert_eq!(budget.free.available_permits(), TOTAL_KIB as usize);
    }

    #[tokio::test]
    async fn a_list_gives_back_what_it_does_not_need() {
        let budget = Budget::new();
        let reserved = budget.reserve_list().await.unwrap();
        assert_eq!(budget.free.available_permits(), (TOTAL_KIB - LIST_KIB) as usize);
        let response = budget.hold(answer(100), Some(reserved)).await.unwrap();
        assert_eq!(budget.free.available_permits(), TOTAL_KIB as usize - 100);
        // JSON escapes make text full of control characters six times as long.
        let reserved = budget.reserve_list().await.unwrap();
        let long = budget.hold(answer(20 * 1024), Some(reserved)).await.unwrap();
        assert_eq!(budget.free.available_permits(), TOTAL_KIB as usize - 100 - 20 * 1024);
        drop((response, long));
        assert_eq!(budget.free.available_permits(), TOTAL_KIB as usize);
    }

    #[tokio::test]
    async fn a_request_waits_for_its_share() {
        let budget = Budget { max_wait: Duration::from_secs(1000), ..Budget::new() };
        let all = budget.take(TOTAL_KIB, 1).await.unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve_list().await }
        });
        while budget.waiting.available_permits() == MAX_WAITING {
            tokio::task::yield_now().await;
        }
        drop(all);
        assert!(waiting.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_request_waits_for_a_limited_time() {
        let budget = Budget { max_wait: Duration::from_millis(1), ..Budget::new() };
        let _all = budget.take(TOTAL_KIB, 1).await.unwrap();
        let refused = budget.reserve_list().await.unwrap_err().into_response();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()["retry-after"], "1");
    }

    #[tokio::test]
    async fn too_many_waiting_requests_are_rejected_at_once() {
        let budget = Budget { max_wait: Duration::from_secs(1_000_000), ..Budget::new() };
        let _all = budget.take(TOTAL_KIB, 1).await.unwrap();
        let others = MAX_WAITING as u32 - BUILT_WEIGHT + 1;
        let _others = budget.waiting.try_acquire_many(others).unwrap();
        assert!(budget.hold(answer(1024), None).await.is_err());
    }
}
