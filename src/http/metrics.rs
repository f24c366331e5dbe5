//! Prometheus metrics: request counters, and what the manager counts.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::error::ApiError;
use super::query::NoQuery;
use crate::manager::TaskManager;

/// Label of requests without a route.
const NO_ROUTE: &str = "none";

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Request {
    method: &'static str,
    route: Arc<str>,
    /// 0 until the response is known.
    status: u16,
}

/// Request counters, and the registry of all metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    routes: matchit::Router<Arc<str>>,
    no_route: Arc<str>,
    requests: Family<Request, Counter>,
    memory: Gauge,
    open_files: Gauge,
    registry: Registry,
    manager: TaskManager,
}

impl Metrics {
    /// `routes` are the path patterns to count separately.
    pub(super) fn new(manager: TaskManager, routes: impl Iterator<Item = String>) -> Self {
        let mut known = matchit::Router::new();
        for route in routes {
            // Cannot fail: the API's router was built from the same patterns.
            let _ = known.insert(route.clone(), route.into());
        }
        let (requests, memory, open_files) =
            (Family::default(), Gauge::default(), Gauge::default());
        let mut registry = Registry::default();
        let own = registry.sub_registry_with_prefix("task_server");
        own.register("http_requests", "Requests by route and status", Family::clone(&requests));
        manager.register_metrics(own);
        registry.register_with_unit(
            "process_resident_memory",
            "Resident memory of the process",
            Unit::Bytes,
            Gauge::clone(&memory),
        );
        registry.register("process_open_fds", "Open file descriptors", Gauge::clone(&open_files));
        let no_route = NO_ROUTE.into();
        Self { routes: known, no_route, requests, memory, open_files, registry, manager }
    }

    pub(super) fn request(&self, method: &Method, path: &str) -> Request {
        let route = self.routes.at(path).map_or(&self.no_route, |found| found.value);
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::DELETE => "DELETE",
            Method::OPTIONS => "OPTIONS",
            // Bounds the number of label values, which clients could otherwise invent.
            _ => "other",
        };
        Request { method, route: Arc::clone(route), status: 0 }
    }

    /// Counts a response.
    pub(super) fn answered(&self, request: Request, status: StatusCode) {
        let request = Request { status: status.as_u16(), ..request };
        self.requests.get_or_create(&request).inc();
    }

    /// All metrics as OpenMetrics text.
    async fn text(&self) -> Result<String, ApiError> {
        self.manager.refresh_metrics().await?;
        if let Some((memory, files)) = process() {
            self.memory.set(memory);
            self.open_files.set(files);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        Ok(text)
    }
}

/// Resident memory in bytes and number of open files, from Linux's `/proc`.
fn process() -> Option<(i64, i64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    let files = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the directory being read.
    Some((kibibytes * 1024, files as i64 - 1))
}

/// Get counters, gauges and histograms for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((
        status = 200, body = String, content_type = "application/openmetrics-text", description = "The metrics"
    ))
)]
pub(super) async fn metrics(
    State(metrics): State<Arc<Metrics>>,
    _: NoQuery,
) -> Result<Response, ApiError> {
    let text = metrics.text().await?;
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(form))];
    Ok((headers, Body::from(text)).into_response())
}
