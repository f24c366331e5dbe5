//! Who may come in: checks the `Host` a request names and the API key it brings.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::ApiError;

/// Keys shorter than this are too easily guessed.
const MIN_KEY_LENGTH: usize = 16;

/// What a request has to show.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Lower case, without port.
    hosts: HashSet<String>,
    /// Web origins whose pages may change things.
    origins: Vec<HeaderValue>,
    /// `None` where no key is asked for.
    keys: Option<ApiKeys>,
}

impl Gate {
    /// `address` is what the server listens on.
    pub(crate) fn new(
        address: IpAddr,
        allowed_hosts: &[String],
        origins: Vec<HeaderValue>,
        keys: Option<ApiKeys>,
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
        let harmless = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let Some(origin) = headers.get(header::ORIGIN) else {
            let site = headers.get("sec-fetch-site");
            if harmless || site.is_none_or(|site| site != "cross-site") {
                return Ok(());
            }
            let detail = "pages of other sites may not do this: send an Origin header to be known";
            return Err(ApiError::new(StatusCode::FORBIDDEN, detail));
        };
        let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
        let own = origin.as_bytes().strip_prefix(b"http://");
        let own = own.or(origin.as_bytes().strip_prefix(b"https://"));
        if harmless || self.origins.contains(origin) || (own.is_some() && own == host) {
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
        let problem = match given {
            Some(key) if keys.contain(key) => return Ok(()),
            Some(_) => "this API key is not known here",
            None => "an API key is required: send Authorization: Bearer KEY",
        };
        let challenge = "Bearer realm=\"task-server\"";
        Err(ApiError::new(StatusCode::UNAUTHORIZED, problem)
            .with(header::WWW_AUTHENTICATE, challenge))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // Not so the last part of an IPv6 address.
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Probes and documentation tell nothing of tasks.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/openapi.json" | "/docs")
        || path.starts_with("/health/")
        || path.starts_with("/docs/")
}

fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// SHA-256 of each key; the keys themselves are not kept. They are random, so that a slow hash
/// would protect nothing.
#[derive(Debug)]
pub(crate) struct ApiKeys(Vec<[u8; 32]>);

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the API keys in `{path}`")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line is no key. The line itself is not repeated, it may be almost one.
    #[error("line {line} of `{path}` {problem}")]
    Line {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Nobody could get in.
    #[error("`{0}` has no API key in it: write one a line")]
    Empty(String),
}

impl ApiKeys {
    /// Reads a file with one key a line, or `sha256:` and its hash in hex. Empty lines and those
    /// that begin with `#` do not count.
    ///
    /// # Errors
    /// If the file cannot be read, has no key, or has one that is too short.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyFileError> {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| KeyFileError::Unreadable { path: name(), source })?;
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = hash_of_line(line).map_err(|problem| KeyFileError::Line {
                path: name(),
                line: index + 1,
                problem,
            })?;
            keys.push(key);
        }
        if keys.is_empty() { Err(KeyFileError::Empty(name())) } else { Ok(Self(keys)) }
    }

    /// Takes the same time whichever key it is compared with.
    fn contain(&self, key: &str) -> bool {
        let hash = hash(key);
        let found = self.0.iter().map(|known| known.ct_eq(&hash));
        found.fold(subtle::Choice::from(0), |any, this| any | this).into()
    }
}

fn hash_of_line(line: &str) -> Result<[u8; 32], &'static str> {
    let Some(hex) = line.strip_prefix("sha256:") else {
        return if line.len() < MIN_KEY_LENGTH {
            Err("is shorter than 16 characters, too short for a key")
        } else {
            Ok(hash(line))
        };
    };
    let problem = "is no SHA-256 hash, expected 64 hexadecimal digits after `sha256:`";
    if hex.len() != 64 || !hex.is_ascii() {
        return Err(problem);
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        let digits = &hex[2 * index..2 * index + 2];
        *byte = u8::from_str_radix(digits, 16).map_err(|_| problem)?;
    }
    Ok(hash)
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
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

    #[test]
    fn a_key_file_takes_keys_and_their_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let hashed: String =
            hash("the second key of them").iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("# ours\n\nthe first key of them\nsha256:{hashed}\n");
        std::fs::write(&path, text).unwrap();
        let keys = ApiKeys::read(&path).unwrap();
        assert!(keys.contain("the first key of them") && keys.contain("the second key of them"));
        assert!(!keys.contain("# ours") && !keys.contain(""));

        std::fs::write(&path, "short\n").unwrap();
        let error = ApiKeys::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("short\n"), "{error}");
    }
}
