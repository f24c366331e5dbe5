//! The dashboard: a page that is part of the program, and uses the API like any other client.

use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::{no_such_route, query};

/// Where it is, and all that belongs to it.
pub(super) const ROUTES: [&str; 3] = ["/dashboard", "/dashboard/", "/dashboard/{*file}"];

/// Nothing but what this server sends, and text never becomes markup or script. `blob:` is for
/// images that were fetched with an API key.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// One file of the page.
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

/// The page itself, whatever view of it the address names, and what it loads.
static ASSETS: LazyLock<[Asset; 15]> = LazyLock::new(|| {
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
        // Someone has followed a link: the page says that there is nothing, and leads back.
        (None, Some(page)) if is_wanted(&headers) => {
            let mut response = page.answer(&HeaderMap::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
        (None, _) => no_such_route(uri).await.into_response(),
    }
}

/// Whether a request comes from the address bar of a browser.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|value| value.to_str().is_ok_and(|value| value.contains("text/html")))
}

impl Asset {
    fn new(name: &'static str, content_type: &'static str, content: &'static str) -> Self {
        let hash = Sha256::digest(content.as_bytes());
        let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { name, content_type, content, tag: format!("\"{hex}\"") }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let mut response = match query::has_tag(headers, &self.tag) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.content.into_response(),
        };
        let tag = HeaderValue::from_str(&self.tag);
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, self.content_type),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            // Asked for each time, so that a new version of the server brings its own page.
            (header::CACHE_CONTROL, "no-cache"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.extend(tag.map(|tag| (header::ETAG, tag)).ok());
        response
    }
}
