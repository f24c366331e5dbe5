//! Admission of requests: checks of the `Host` header, the origin and the API key.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};

use super::api_key::Access;
use super::error::ApiError;
use super::key_file::KeyRing;

/// Checks that every request must pass.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Accepted names in lower case, without port.
    hosts: HashSet<String>,
    /// Web origins whose pages may send changes.
    origins: Vec<HeaderValue>,
    /// `None` if no key is required.
    keys: Option<Arc<KeyRing>>,
}

impl Gate {
    /// `address` is what the server listens on.
    pub(crate) fn new(
        address: IpAddr,
        allowed_hosts: &[String],
        origins: Vec<HeaderValue>,
        keys: Option<Arc<KeyRing>>,
    ) -> Self {
        let loopback = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        let listen = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let hosts = loopback.into_iter().chain([listen]).chain(allowed_hosts.iter().cloned());
        Self { hosts: hosts.collect(), origins, keys }
    }

    /// Checks the host, the origin and the key of a request.
    pub(super) fn check(&self, request: &Request) -> Result<(), ApiError> {
        self.check_host(request)?;
        self.check_origin(request)?;
        self.check_key(request)
    }

    /// Stops DNS rebinding: a foreign page can point its own name at this server, but the browser then
    /// sends that name.
    fn check_host(&self, request: &Request) -> Result<(), ApiError> {
        let mut headers = request.headers().get_all(header::HOST).iter();
        let header = headers.next().and_then(|host| host.to_str().ok());
        if headers.next().is_some() {
            // A proxy in front might check a different one.
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "expected one Host header"));
        }
        let given = request.uri().authority().map(|name| name.as_str()).or(header);
        let given = given.unwrap_or_default();
        let host = without_port(given);
        if self.hosts.contains(host) || self.hosts.contains(&host.to_ascii_lowercase()) {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "host `{host}` not allowed: to allow it, start the server with --allowed-host {host}"
            ),
        ))
    }

    /// Stops cross-site request forgery: a foreign page can send a request without a body and without a
    /// preflight, but cannot hide its origin.
    fn check_origin(&self, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        if is_safe(request.method()) {
            return Ok(());
        }
        let Some(origin) = headers.get(header::ORIGIN) else {
            if headers.get("sec-fetch-site").is_none_or(|site| site != "cross-site") {
                return Ok(());
            }
            let detail = "cross-site request without an Origin header not allowed";
            return Err(ApiError::new(StatusCode::FORBIDDEN, detail));
        };
        let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
        let own = origin.as_bytes().strip_prefix(b"http://");
        let own = own.or(origin.as_bytes().strip_prefix(b"https://"));
        if self.origins.contains(origin) || (own.is_some() && own == host) {
            return Ok(());
        }
        let origin = origin.to_str().unwrap_or("?");
        let detail = format!(
            "changes from pages of {origin} not allowed: to allow them, start the server with --cors-origin {origin}"
        );
        Err(ApiError::new(StatusCode::FORBIDDEN, detail))
    }

    fn check_key(&self, request: &Request) -> Result<(), ApiError> {
        let Some(keys) = &self.keys else { return Ok(()) };
        if is_open(request.uri().path()) {
            return Ok(());
        }
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok()).and_then(bearer_token);
        let Some(given) = given else {
            return Err(unauthorized(
                "API key required: send Authorization: Bearer KEY",
                "Bearer realm=\"task-server\"",
            ));
        };
        let Some(key) = keys.find(given) else {
            return Err(unauthorized(
                "unknown API key",
                "Bearer realm=\"task-server\", error=\"invalid_token\"",
            ));
        };
        match key.access() {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly if is_safe(request.method()) => Ok(()),
            Access::ReadOnly => {
                let name = key.name().map(ToString::to_string).unwrap_or_default();
                let method = request.method();
                let detail =
                    format!("API key `{name}` is read-only: {method} requires a read-write key");
                let challenge = "Bearer realm=\"task-server\", error=\"insufficient_scope\"";
                Err(ApiError::new(StatusCode::FORBIDDEN, detail)
                    .with(header::WWW_AUTHENTICATE, challenge))
            }
        }
    }

    /// Resolves when the key set changes; `None` if no key is required.
    pub(super) fn keys_changed(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        self.keys.as_ref().map(|keys| keys.changed())
    }

    /// Returns whether requests need a key.
    pub(super) fn requires_key(&self) -> bool {
        self.keys.is_some()
    }
}

fn unauthorized(problem: &'static str, challenge: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, problem).with(header::WWW_AUTHENTICATE, challenge)
}

/// Returns whether a method changes nothing (RFC 9110, section 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The last group of an IPv6 address is followed by `]`.
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Returns whether a path needs no key: probes, documentation and the dashboard reveal nothing about tasks.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/openapi.json" | "/docs" | "/dashboard")
        || path.starts_with("/health/")
        || path.starts_with("/docs/")
        || path.starts_with("/dashboard/")
}

fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_part_of_the_name() {
        for (given, name) in [
            ("localhost:8000", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:8000", "[::1]"),
            ("[::1]", "[::1]"),
            ("evil.example:80", "evil.example"),
            ("localhost:80@evil.example", "localhost:80@evil.example"),
        ] {
            assert_eq!(without_port(given), name);
        }
    }
}
