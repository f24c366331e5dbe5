//! The HTTP layer: routes, what goes in and out of them, and who may call them. It asks the
//! manager and knows nothing of the store.

mod api_key;
mod body;
mod budget;
mod connections;
mod dashboard;
mod error;
mod events;
mod gate;
mod key_file;
mod linger;
mod metrics;
mod openapi;
mod output;
mod pace;
mod query;
mod retry;
mod server;
mod service;
mod tasks;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Level;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::manager::TaskManager;
pub(crate) use api_key::{Access, KeyName, NewKey};
use budget::{Budget, Share};
pub(crate) use connections::ClientLimits;
use error::ApiError;
pub(crate) use gate::Gate;
pub use key_file::KeyFileError;
pub(crate) use key_file::{KeyFile, KeyRing};
use metrics::Metrics;
pub(crate) use query::{DEFAULT_LIMIT, MAX_LIMIT};
pub(crate) use server::serve;

/// The whole API: what every request passes on its way to a route.
///
/// The layers are put around the router as a whole; as layers of the router each would be a box
/// around every single route.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    gate: Arc<Gate>,
    router: Router,
    metrics: Arc<Metrics>,
    budget: Budget,
    cors: CorsLayer,
}

impl Api {
    pub(crate) fn new(manager: TaskManager, gate: Gate, origins: Vec<HeaderValue>) -> Self {
        let (router, metrics) = router(manager, gate.asks_for_keys());
        Self { gate: Arc::new(gate), router, metrics, budget: Budget::new(), cors: cors(origins) }
    }

    /// Answers a request.
    async fn answer(&self, mut request: Request) -> Response {
        drop_trailing_slash(request.uri_mut());
        let from_page = request.headers().contains_key(header::ORIGIN);
        if from_page || request.method() == Method::OPTIONS {
            // Outermost, so that error answers carry its headers too.
            let api = self.clone();
            let pass = move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.pass(request).await) }
            };
            let Ok(response) = Box::pin(self.cors.layer(service_fn(pass)).oneshot(request)).await;
            return response;
        }
        let mut response = self.pass(request).await;
        response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
        response
    }

    /// Lets a request through to its route.
    async fn pass(&self, request: Request) -> Response {
        let route = self.metrics.route(request.method(), request.uri().path());
        let line = tracing::enabled!(Level::DEBUG)
            .then(|| (request.method().clone(), request.uri().clone()));
        let lasts = request.uri().path().ends_with(events::PATH);
        let keys_changed = lasts.then(|| self.gate.keys_changed()).flatten();
        let mut response = match self.gate.check(&request) {
            Ok(()) if budget::is_list(&request) => Box::pin(self.list(request)).await,
            Ok(()) => match self.route(request).await {
                large if budget::is_large(&large) => Box::pin(self.hold(large, None)).await,
                response => response,
            },
            Err(error) => error.into_response(),
        };
        if let Some(keys_changed) = keys_changed {
            // Whoever still has a key comes back.
            response = response
                .map(|body| Body::from_stream(body.into_data_stream().take_until(keys_changed)));
        }
        self.metrics.answered(route, response.status());
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some((method, uri)) = line {
            // As a string it is quoted, with whatever could act on a terminal escaped.
            let (uri, status) = (uri.to_string(), response.status().as_u16());
            tracing::debug!(%method, uri, status, "answered");
        }
        response
    }

    /// Answers a request for a list, which takes memory before its size is known.
    async fn list(&self, request: Request) -> Response {
        let reserved = match self.budget.reserve_list().await {
            Ok(reserved) => reserved,
            Err(error) => return error.into_response(),
        };
        match self.route(request).await {
            large if budget::is_large(&large) => self.hold(large, Some(reserved)).await,
            response => response,
        }
    }

    /// Counts a large answer until it is written.
    async fn hold(&self, response: Response, reserved: Option<Share>) -> Response {
        let held = self.budget.hold(response, reserved).await;
        held.unwrap_or_else(ApiError::into_response)
    }

    /// Has the route of a request answer it.
    async fn route(&self, request: Request) -> Response {
        let answer = AssertUnwindSafe(self.router.clone().oneshot(request));
        match answer.catch_unwind().await {
            Ok(Ok(response)) => response,
            Err(panic) => ApiError::from_panic(panic),
        }
    }
}

/// `guarded` is whether requests have to bring a key.
fn router(manager: TaskManager, guarded: bool) -> (Router, Arc<Metrics>) {
    let routes = OpenApiRouter::with_openapi(openapi::ApiDoc::openapi())
        .routes(routes!(service::root))
        .routes(routes!(tasks::submit, tasks::list))
        .routes(routes!(tasks::current))
        .routes(routes!(tasks::get, tasks::cancel))
        .routes(routes!(retry::retry))
        .routes(routes!(output::get))
        .routes(routes!(events::of_task))
        .routes(routes!(events::of_many))
        .routes(routes!(tasks::cancel_all))
        .routes(routes!(retry::retry_all))
        .routes(routes!(service::task_types))
        .routes(routes!(service::roots))
        .routes(routes!(service::live))
        .routes(routes!(service::ready))
        .routes(routes!(service::stats));
    let patterns = routes.get_openapi().paths.paths.keys().cloned();
    let others = ["/metrics", "/openapi.json", "/docs", "/docs/{*file}"];
    let others = others.into_iter().chain(dashboard::ROUTES).map(str::to_owned);
    let metrics = Arc::new(Metrics::new(manager.clone(), patterns.chain(others)));
    let of_metrics = OpenApiRouter::new().routes(routes!(metrics::metrics));
    let (routes, mut document) = routes
        .with_state(manager)
        .merge(of_metrics.with_state(Arc::clone(&metrics)))
        .split_for_parts();
    openapi::complete(&mut document, guarded);
    // Made once, as it never changes while the server runs.
    let document = Bytes::from(document.to_json().expect("no key is anything but a string"));
    let document = ([(header::CONTENT_TYPE, "application/json")], document);
    let router = routes
        .route("/openapi.json", get(async move || document.clone()))
        .merge(documentation())
        .merge(dashboard::router())
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method);
    (router, metrics)
}

/// Makes `/tasks/` mean `/tasks`. The pages keep their slashes: their links are relative.
fn drop_trailing_slash(uri: &mut Uri) {
    let path = uri.path();
    let of_page = path.starts_with("/docs/") || path.starts_with("/dashboard/");
    let Some(path) = path.strip_suffix('/').filter(|path| !path.is_empty() && !of_page) else {
        return;
    };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if let Ok(without) = format!("{path}{query}").parse() {
        *uri = without;
    }
}

/// Swagger UI. It needs nothing but what this server sends; its icons are `data:` images, and its
/// components carry their own styles.
fn documentation() -> Router {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
        img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
        frame-ancestors 'none'";
    let with_policy = async |mut response: Response| {
        let policy = HeaderValue::from_static(POLICY);
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        response
    };
    let pages = Router::from(SwaggerUi::new("/docs").config(Config::from("/openapi.json")));
    pages.layer(map_response(with_policy))
}

/// An origin that no header can carry.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no web origin, expected one such as http://localhost:3000")]
pub struct InvalidOrigin(String);

/// The origins as headers name them.
pub(crate) fn origins(origins: &[String]) -> Result<Vec<HeaderValue>, InvalidOrigin> {
    let parse = |origin: &String| match HeaderValue::from_str(origin) {
        Ok(value) if origin.contains("://") && !origin.ends_with('/') => Ok(value),
        _ => Err(InvalidOrigin(origin.clone())),
    };
    origins.iter().map(parse).collect()
}

fn cors(origins: Vec<HeaderValue>) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        .allow_headers([
            header::ACCEPT,
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MODIFIED_SINCE,
            header::IF_NONE_MATCH,
            header::IF_RANGE,
            header::RANGE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("prefer"),
        ])
        .expose_headers([
            header::CONTENT_DISPOSITION,
            header::CONTENT_RANGE,
            header::ETAG,
            header::LINK,
            header::LOCATION,
            header::RETRY_AFTER,
        ])
}

async fn no_such_route(uri: Uri) -> ApiError {
    let detail = format!("there is nothing at {}, see /docs for what there is", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, detail)
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let detail = format!("{method} is not possible at {}, see /docs for what is", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
