//! HTTP client of the verbs, which maps error responses to exit codes.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request;
use hyper::{Method, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::time::timeout;

use super::exit::{Exit, Failure, fault_line};
use super::terminal::escape;

const DEFAULT_URL: &str = "http://127.0.0.1:8000";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than a long poll is held and than the interval between keep-alives of event streams.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Server options of a verb.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub(super) struct Connection {
    /// URL of the server
    #[arg(long, env = "TASK_SERVER_URL", value_name = "URL", default_value = DEFAULT_URL)]
    url: String,

    /// API key; prefer the environment variable, since other users can see command lines
    #[arg(long, env = "TASK_SERVER_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,

    /// Print the server's JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Connection {
    pub(super) fn without_key(url: String) -> Self {
        Self { url, api_key: None, json: false }
    }

    /// Returns ` --url URL`, or nothing for the default URL.
    pub(super) fn url_option(&self) -> String {
        match self.url.as_str() {
            DEFAULT_URL => String::new(),
            url => format!(" --url {}", escape(url)),
        }
    }
}

/// Client of one server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Without a trailing slash.
    base: String,
    authorization: Option<HeaderValue>,
}

#[derive(Debug)]
pub(super) struct Request {
    builder: request::Builder,
    /// Path and query.
    path: String,
    body: Bytes,
    /// Exit code for status 409.
    conflict: Exit,
}

impl Request {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        let builder = request::Builder::new().method(method);
        Self { builder, path: path.into(), body: Bytes::new(), conflict: Exit::Data }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn header(self, name: &str, value: &str) -> Self {
        Self { builder: self.builder.header(name, value), ..self }
    }

    pub(super) fn conflict(self, conflict: Exit) -> Self {
        Self { conflict, ..self }
    }

    pub(super) fn json(self, body: &Value) -> Self {
        let body = Bytes::from(body.to_string());
        Self { body, ..self }.header("content-type", "application/json")
    }
}

/// Body of an error response.
#[derive(Deserialize)]
struct ErrorBody {
    /// `/health/ready` calls it `reason`.
    #[serde(alias = "reason")]
    detail: Detail,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Detail {
    Sentence(String),
    Faults(Vec<Fault>),
}

#[derive(Deserialize)]
struct Fault {
    loc: Vec<Value>,
    msg: String,
}

impl Client {
    pub(super) fn new(connection: &Connection) -> Result<Self, Failure> {
        let base = connection.url.trim_end_matches('/');
        let parsed = base.parse::<Uri>().ok().filter(|url| url.query().is_none());
        let scheme = parsed.as_ref().and_then(Uri::scheme_str).unwrap_or_default();
        if !["http", "https"].contains(&scheme) {
            let base = escape(base);
            let message =
                format!("invalid --url `{base}`: expected http://HOST:PORT or https://HOST");
            return Err(Failure::new(Exit::Usage, message));
        }
        let key = connection.api_key.as_deref().filter(|key| !key.is_empty());
        let authorization = key.map(|key| HeaderValue::try_from(format!("Bearer {key}")));
        let authorization = authorization.transpose().map_err(|_| {
            Failure::new(Exit::Usage, "invalid --api-key: expected no control characters")
        })?;
        let connector = connector(scheme == "https").map_err(|error| {
            let message = format!("cannot read the system's certificates: {error}");
            Failure::new(Exit::Unavailable, message)
        })?;
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { http, base: base.to_owned(), authorization })
    }

    /// Sends a request. Any status but 2xx is a failure.
    pub(super) async fn send(&self, request: Request) -> Result<Response<Incoming>, Failure> {
        let conflict = request.conflict;
        let response = self.within_timeout(self.http.request(self.prepare(request)?)).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if let Some(to) = response.headers().get("location").filter(|_| status.is_redirection()) {
            let to = escape(&String::from_utf8_lossy(to.as_bytes()));
            let message = format!("{} redirects to {to}: pass that as --url", self.base);
            return Err(Failure::new(Exit::Protocol, message));
        }
        let text = self.text(response).await.unwrap_or_default();
        Err(self.failure(status, conflict, &text))
    }

    fn prepare(&self, request: Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let mut builder = request
            .builder
            .uri(format!("{}{}", self.base, request.path))
            .header("user-agent", concat!("task-server/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = &self.authorization {
            builder = builder.header("authorization", authorization);
        }
        builder
            .body(Full::new(request.body))
            .map_err(|error| Failure::new(Exit::Usage, format!("invalid request: {error}")))
    }

    /// Sends a request and returns the JSON of the response.
    pub(super) async fn json(&self, request: Request) -> Result<String, Failure> {
        let text = self.text(self.send(request).await?).await?;
        self.parse::<IgnoredAny>(&text)?;
        Ok(text)
    }

    /// Gets one page of a list; returns its JSON and the query of the next page.
    pub(super) async fn page(&self, query: &str) -> Result<(String, Option<String>), Failure> {
        let response = self.send(Request::get(format!("/tasks?{query}"))).await?;
        let next = next_query(&response);
        Ok((self.text(response).await?, next))
    }

    async fn text(&self, response: Response<Incoming>) -> Result<String, Failure> {
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(part) = self.part(&mut body).await? {
            bytes.extend_from_slice(&part);
        }
        String::from_utf8(bytes).map_err(|error| self.invalid_response(&error))
    }

    /// Returns the next part of a body, or `None` at its end.
    pub(super) async fn part(&self, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        while let Some(frame) =
            self.within_timeout(async { body.frame().await.transpose() }).await?
        {
            // Skips trailers.
            if let Ok(part) = frame.into_data() {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }

    pub(super) fn parse<'a, T: Deserialize<'a>>(&self, json: &'a str) -> Result<T, Failure> {
        serde_json::from_str(json).map_err(|error| self.invalid_response(&error))
    }

    async fn within_timeout<T, E: Error + 'static>(
        &self,
        io: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let reason = match timeout(READ_TIMEOUT, io).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => root_cause(&error),
            Err(_) => format!("no data within {READ_TIMEOUT:?}"),
        };
        let message = format!("cannot reach {}: {reason} (see --url)", self.base);
        Err(Failure::new(Exit::Unavailable, message))
    }

    fn invalid_response(&self, error: &dyn Error) -> Failure {
        // Escaped because the error may quote the response.
        let error = escape(&error.to_string());
        Failure::new(Exit::Protocol, format!("invalid response from {}: {error}", self.base))
    }

    fn failure(&self, status: StatusCode, conflict: Exit, text: &str) -> Failure {
        let exit = match status.as_u16() {
            401 | 403 => Exit::NoPermission,
            409 => conflict,
            413 | 421 | 422 => Exit::Usage,
            408 | 429 | 503 | 507 => Exit::TryLater,
            502 | 504 => Exit::Unavailable,
            400..500 => Exit::Data,
            500..600 => Exit::Internal,
            _ => Exit::Protocol,
        };
        let Ok(ErrorBody { detail }) = serde_json::from_str(text) else {
            // Without the body of a task-server, these statuses say nothing about a task.
            let is_state = exit == Exit::Data || status == StatusCode::CONFLICT;
            let exit = if is_state { Exit::Protocol } else { exit };
            return Failure::new(exit, format!("unexpected response from {}: {status}", self.base));
        };
        let mut message = match detail {
            Detail::Sentence(sentence) => escape(&sentence),
            Detail::Faults(faults) => {
                // Users of the command line see options, not a body.
                let line = |fault: &Fault| match fault.loc.as_slice() {
                    [body, field @ ..] if body == "body" => fault_line(field, &fault.msg),
                    loc => fault_line(loc, &fault.msg),
                };
                faults.iter().map(line).collect::<Vec<_>>().join("\n")
            }
        };
        if status == StatusCode::UNAUTHORIZED {
            message.push_str("\nset the API key in the environment variable TASK_SERVER_API_KEY");
        }
        Failure::new(exit, message)
    }
}

/// Builds a connector for HTTP, or for HTTPS with the certificates that the system trusts.
fn connector(tls: bool) -> io::Result<HttpsConnector<HttpConnector>> {
    let builder = HttpsConnectorBuilder::new();
    let builder = if tls {
        builder.with_provider_and_native_roots(ring::default_provider())?
    } else {
        // Certificates are slow to read, and a container may have none.
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let none = RootCertStore::empty();
        builder.with_tls_config(config.with_root_certificates(none).with_no_client_auth())
    };
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.enforce_http(false);
    Ok(builder.https_or_http().enable_http1().wrap_connector(tcp))
}

/// Returns the query of the next page (RFC 8288). The path is dropped: a proxy may have rewritten it.
fn next_query(response: &Response<Incoming>) -> Option<String> {
    let link = response.headers().get("link")?.to_str().ok()?;
    let (target, _) = link.split_once(">; rel=\"next\"")?;
    target.rsplit_once('?').map(|(_, query)| query.to_owned())
}

/// Returns the innermost cause, since hyper's outer errors add no information.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let causes = successors(Some(error), |&error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}
