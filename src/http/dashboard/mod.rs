//! The dashboard: a page embedded in the program, which uses the API like any other client.

use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::{no_such_route, query};

/// Route patterns of the page and its files.
pub(super) const ROUTES: [&str; 3] = ["/dashboard", "/dashboard/", "/dashboard/{*file}"];

/// Loads only from this server, and never turns text into markup or script. `blob:` is for images
/// fetched with an API key.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// File of the page.
#[derive(Debug)]
struct Asset {
    name: &'static str,
    content_type: &'static str,
    content: &'static str,
    tag: String,
}

macro_rules! asset {
    ($name:literal, $content_type:expr) => {
        Asset::new($name, $content_type, include_str!($name))
    };
}

/// The page and all files that it loads.
static ASSETS: LazyLock<[Asset; 16]> = LazyLock::new(|| {
    [
        asset!("index.html", HTML),
        asset!("style.css", "text/css; charset=utf-8"),
        asset!("icon.svg", "image/svg+xml"),
        asset!("theme.js", SCRIPT),
        asset!("app.js", SCRIPT),
        asset!("api.js", SCRIPT),
        asset!("dom.js", SCRIPT),
        asset!("actions.js", SCRIPT),
        asset!("tasks.js", SCRIPT),
        asset!("row.js", SCRIPT),
        asset!("task.js", SCRIPT),
        asset!("output.js", SCRIPT),
        asset!("log.js", SCRIPT),
        asset!("field.js", SCRIPT),
        asset!("submit.js", SCRIPT),
        asset!("overview.js", SCRIPT),
    ]
});

pub(super) fn router() -> Router {
    ROUTES.into_iter().fold(Router::new(), |router, route| router.route(route, get(file)))
}

async fn file(uri: Uri, headers: HeaderMap) -> Response {
    let name = uri.path().trim_start_matches("/dashboard").trim_matches('/');
    let name = match name.split_once('/') {
        Some(("tasks", _)) => "index.html",
        _ if matches!(name, "" | "overview" | "submit") => "index.html",
        _ => name,
    };
    let find = |name| ASSETS.iter().find(|asset| asset.name == name);
    match (find(name), find("index.html")) {
        (Some(asset), _) => asset.answer(&headers),
        // A browser gets the page, which shows an error and a way back.
        (None, Some(page)) if is_navigation(&headers) => {
            let mut response = page.answer(&HeaderMap::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
        (None, _) => no_such_route(uri).await.into_response(),
    }
}

/// Returns whether a browser navigates here, rather than a client of the API.
pub(super) fn is_navigation(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|value| value.to_str().is_ok_and(|value| value.contains("text/html")))
}

impl Asset {
    fn new(name: &'static str, content_type: &'static str, content: &'static str) -> Self {
        let hash = Sha256::digest(content);
        Self { name, content_type, content, tag: format!("\"{hash:.16x}\"") }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let mut response = query::tagged(headers, &self.tag, self.content);
        for (name, value) in [
            (header::CONTENT_TYPE, self.content_type),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            // Revalidated on each load, so that an upgrade of the server updates the page.
            (header::CACHE_CONTROL, "no-cache"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
