//! The HTTP layer: routes, request and response bodies, and access control. It calls the manager and never
//! the store.

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
mod log;
mod metrics;
mod openapi;
mod output;
mod output_folder;
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
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::Level;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::manager::TaskManager;
pub(crate) use api_key::{Access, KeyName, NewKey};
use budget::Budget;
pub(crate) use connections::ClientLimits;
use error::ApiError;
pub(crate) use gate::Gate;
pub use key_file::KeyFileError;
pub(crate) use key_file::{KeyFile, KeyRing};
use metrics::Metrics;
pub(crate) use query::{DEFAULT_LIMIT, MAX_LIMIT};
pub(crate) use server::serve;

/// The API as a service: the router, and the layers that every request passes.
///
/// The layers wrap the router as a whole. As layers of the router they would be boxed around each route.
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
        let (router, metrics) = router(manager, gate.requires_key());
        Self { gate: Arc::new(gate), router, metrics, budget: Budget::new(), cors: cors(origins) }
    }

    async fn answer(&self, mut request: Request) -> Response {
        drop_trailing_slash(request.uri_mut());
        let from_page = request.headers().contains_key(header::ORIGIN);
        if from_page || request.method() == Method::OPTIONS {
            // Outermost, so that error responses carry the CORS headers too.
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

    async fn pass(&self, request: Request) -> Response {
        let counted = self.metrics.request(request.method(), request.uri().path());
        let logged = tracing::enabled!(Level::DEBUG)
            .then(|| (request.method().clone(), request.uri().clone()));
        let streams = events::is_stream(request.uri());
        let keys_changed = streams.then(|| self.gate.keys_changed()).flatten();
        let mut response = match self.gate.check(&request) {
            Ok(()) => self.admit(request).await.unwrap_or_else(ApiError::into_response),
            Err(error) => error.into_response(),
        };
        if let Some(keys_changed) = keys_changed {
            // Clients whose keys are still valid reconnect.
            response = response
                .map(|body| Body::from_stream(body.into_data_stream().take_until(keys_changed)));
        }
        self.metrics.answered(counted, response.status());
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some((method, uri)) = logged {
            // Logged as a quoted string, in which terminal escapes are harmless.
            let (uri, status) = (uri.to_string(), response.status().as_u16());
            tracing::debug!(%method, uri, status, "answered");
        }
        response
    }

    /// Routes an admitted request, within the memory budget. The rare waits for memory are boxed to keep
    /// the future of every other request small.
    async fn admit(&self, request: Request) -> Result<Response, ApiError> {
        // A list takes memory before its size is known.
        let reserved = match budget::is_list(&request) {
            true => Some(Box::pin(self.budget.reserve_list()).await?),
            false => None,
        };
        let answer = AssertUnwindSafe(self.router.clone().oneshot(request));
        let Ok(response) =
            answer.catch_unwind().await.map_err(|_| ApiError::internal("a handler panicked"))?;
        match budget::is_large(&response) {
            true => Box::pin(self.budget.hold(response, reserved)).await,
            false => Ok(response),
        }
    }
}

/// Builds the router and its metrics. `guarded` is whether requests need a key.
fn router(manager: TaskManager, guarded: bool) -> (Router, Arc<Metrics>) {
    let routes = OpenApiRouter::with_openapi(openapi::ApiDoc::openapi())
        .routes(routes!(service::root))
        .routes(routes!(tasks::submit, tasks::list))
        .routes(routes!(tasks::current))
        .routes(routes!(tasks::get, tasks::cancel))
        .routes(routes!(retry::retry))
        .routes(routes!(output::get))
        .routes(routes!(output_folder::get_file))
        .routes(routes!(log::get))
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
    // Serialized once: it never changes while the server runs.
    let document = Bytes::from(document.to_json().expect("the keys of the document are strings"));
    let document = ([(header::CONTENT_TYPE, "application/json")], document);
    let router = routes
        .route("/openapi.json", get(async move || document.clone()))
        .merge(documentation())
        .merge(dashboard::router())
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method);
    (router, metrics)
}

/// Makes `/tasks/` equivalent to `/tasks`. Pages keep the slash, which their relative links need.
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

/// Swagger UI. It loads only from this server; its icons are `data:` images and its styles are inline.
fn documentation() -> Router {
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
         img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    );
    let pages = Router::from(SwaggerUi::new("/docs").config(Config::from("/openapi.json")));
    pages.layer(SetResponseHeaderLayer::overriding(header::CONTENT_SECURITY_POLICY, POLICY))
}

/// Invalid web origin.
#[derive(Debug, thiserror::Error)]
#[error("invalid web origin `{0}`: expected a value such as http://localhost:3000")]
pub struct InvalidOrigin(String);

/// Parses web origins into values of the `Origin` header.
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
    let detail = format!("no route {}: see /docs", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, detail)
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let detail = format!("method {method} not allowed on {}: see /docs", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
