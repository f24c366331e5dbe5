//! Who may come in: checks the `Host` a request names and the API key it brings.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};

use super::api_key::Access;
use super::error::ApiError;
use super::key_file::KeyRing;

/// What a request has to show.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Lower case, without port.
    hosts: HashSet<String>,
    /// Web origins whose pages may change things.
    origins: Vec<HeaderValue>,
    /// `None` where no key is asked for.
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

    /// Whether a request may come in.
    pub(super) fn check(&self, request: &Request) -> Result<(), ApiError> {
        self.check_host(request)?;
        self.check_origin(request)?;
        self.check_key(request)
    }

    /// A page of another site can make its own name point at this server (DNS rebinding), but it
    /// cannot make the browser send another name than that.
    fn check_host(&self, request: &Request) -> Result<(), ApiError> {
        let mut headers = request.headers().get_all(header::HOST).iter();
        let header = headers.next().and_then(|host| host.to_str().ok());
        if headers.next().is_some() {
            // A proxy in front may go by another one than this server.
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
                "this server does not go by the name `{host}`: start it with --allowed-host \
                 {host} if it should"
            ),
        ))
    }

    /// A page of another site can make the browser send a request without a body and without asking
    /// first, but it cannot make it hide where the request comes from.
    fn check_origin(&self, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        let Some(origin) = headers.get(header::ORIGIN) else {
            let site = headers.get("sec-fetch-site");
            if is_harmless(request.method()) || site.is_none_or(|site| site != "cross-site") {
                return Ok(());
            }
            let detail = "pages of other sites may not do this: send an Origin header to be known";
            return Err(ApiError::new(StatusCode::FORBIDDEN, detail));
        };
        let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
        let own = origin.as_bytes().strip_prefix(b"http://");
        let own = own.or(origin.as_bytes().strip_prefix(b"https://"));
        if is_harmless(request.method())
            || self.origins.contains(origin)
            || (own.is_some() && own == host)
        {
            return Ok(());
        }
        let origin = origin.to_str().unwrap_or("?");
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!(
                "pages of {origin} may not do this: start the server with --cors-origin {origin} if they should"
            ),
        ))
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
                "an API key is required: send Authorization: Bearer KEY",
                "Bearer realm=\"task-server\"",
            ));
        };
        let Some(key) = keys.find(given) else {
            return Err(unauthorized(
                "this API key is not known here",
                "Bearer realm=\"task-server\", error=\"invalid_token\"",
            ));
        };
        match key.access() {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly if is_harmless(request.method()) => Ok(()),
            Access::ReadOnly => {
                let name = key.name().map(ToString::to_string).unwrap_or_default();
                let method = request.method();
                let detail = format!(
                    "the API key `{name}` is read-only and {method} is for those that may write: \
                     use a read-write key"
                );
                let challenge = "Bearer realm=\"task-server\", error=\"insufficient_scope\"";
                Err(ApiError::new(StatusCode::FORBIDDEN, detail)
                    .with(header::WWW_AUTHENTICATE, challenge))
            }
        }
    }

    /// Returns once the keys are others than at this call; `None` where no key is asked for.
    pub(super) fn keys_changed(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        self.keys.as_ref().map(|keys| keys.changed())
    }

    /// Whether requests have to bring a key.
    pub(super) fn asks_for_keys(&self) -> bool {
        self.keys.is_some()
    }
}

fn unauthorized(problem: &'static str, challenge: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, problem).with(header::WWW_AUTHENTICATE, challenge)
}

/// Whether requests of this method change nothing.
fn is_harmless(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // Not so the last part of an IPv6 address.
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Probes, documentation and the page of the dashboard tell nothing of tasks.
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
