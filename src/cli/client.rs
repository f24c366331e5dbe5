//! The server as its clients see it: requests, and what their answers mean for the exit code.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
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
/// How long a server may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent; event streams are kept alive much more often.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How to talk to the server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub(super) struct Connection {
    /// Where the server is
    #[arg(long, env = "TASK_SERVER_URL", value_name = "URL", default_value = DEFAULT_URL)]
    url: String,

    /// The API key, if the server asks for one; better in the environment, because others on this
    /// machine can read command lines
    #[arg(long, env = "TASK_SERVER_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,

    /// Print JSON, as the server sent it
    #[arg(long)]
    pub(super) json: bool,
}

impl Connection {
    /// To a server that asks for no key, or for routes that need none.
    pub(super) fn without_key(url: String) -> Self {
        Self { url, api_key: None, json: false }
    }

    /// The option that leads to the same server, with a space before it, if there has to be one.
    pub(super) fn url_option(&self) -> String {
        match self.url.as_str() {
            DEFAULT_URL => String::new(),
            url => format!(" --url {}", escape(url)),
        }
    }
}

/// Talks to one server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Without a slash at the end.
    base: String,
    authorization: Option<HeaderValue>,
}

/// What is asked of the server.
#[derive(Debug)]
pub(super) struct Request {
    method: Method,
    /// With the query.
    path: String,
    header: Option<(&'static str, String)>,
    body: Option<Value>,
    /// What a conflict (409) means.
    conflict: Exit,
}

impl Request {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), header: None, body: None, conflict: Exit::Data }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.header = Some((name, value.to_owned()));
        self
    }

    pub(super) fn conflict(mut self, exit: Exit) -> Self {
        self.conflict = exit;
        self
    }

    pub(super) fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }
}

/// An error of the server.
#[derive(Deserialize)]
struct ErrorBody {
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
        let usage = |reason: String| Failure::new(Exit::Usage, reason);
        let base = connection.url.trim_end_matches('/');
        let parsed = base.parse::<Uri>().ok().filter(|url| url.query().is_none());
        let scheme = parsed.as_ref().and_then(Uri::scheme_str).unwrap_or_default();
        if !["http", "https"].contains(&scheme) {
            let base = escape(base);
            return Err(usage(format!(
                "--url `{base}`: expected http://HOST:PORT or https://HOST"
            )));
        }
        let key = connection.api_key.as_deref().filter(|key| !key.is_empty());
        let authorization = key.map(|key| HeaderValue::try_from(format!("Bearer {key}")));
        let authorization = authorization.transpose().map_err(|_| {
            usage("--api-key has characters that no key has: is it the right one?".to_owned())
        })?;
        let connector = connector(scheme == "https").map_err(|error| {
            let message = format!("cannot read the certificates of this system: {error}");
            Failure::new(Exit::Unavailable, message)
        })?;
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { http, base: base.to_owned(), authorization })
    }

    /// Sends a request; an answer that is an error becomes a failure.
    pub(super) async fn send(&self, request: Request) -> Result<Response<Incoming>, Failure> {
        let conflict = request.conflict;
        let asked = self.http.request(self.prepare(request)?);
        let response = match timeout(READ_TIMEOUT, asked).await {
            Ok(answered) => answered.map_err(|error| self.unreachable(&root_cause(&error)))?,
            Err(_) => return Err(self.silent()),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if let Some(to) = response.headers().get("location").filter(|_| status.is_redirection()) {
            let to = escape(&String::from_utf8_lossy(to.as_bytes()));
            let message = format!("{} sends its clients on to {to}: give that as --url", self.base);
            return Err(Failure::new(Exit::Protocol, message));
        }
        let text = self.text(response).await.unwrap_or_default();
        Err(self.failure(status, conflict, &text))
    }

    fn prepare(&self, request: Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let mut builder = hyper::Request::builder()
            .method(request.method)
            .uri(format!("{}{}", self.base, request.path))
            .header("user-agent", concat!("task-server/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = &self.authorization {
            builder = builder.header("authorization", authorization);
        }
        if let Some((name, value)) = request.header {
            builder = builder.header(name, value);
        }
        let body = match request.body {
            Some(body) => {
                builder = builder.header("content-type", "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        builder.body(Full::new(body)).map_err(|error| {
            Failure::new(Exit::Usage, format!("this cannot be sent over HTTP: {error}"))
        })
    }

    /// Sends a request; returns the JSON that came back.
    pub(super) async fn json(&self, request: Request) -> Result<String, Failure> {
        let text = self.text(self.send(request).await?).await?;
        self.parse::<IgnoredAny>(&text)?;
        Ok(text)
    }

    /// The body of an answer.
    pub(super) async fn text(&self, response: Response<Incoming>) -> Result<String, Failure> {
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(part) = self.part(&mut body).await? {
            bytes.extend_from_slice(&part);
        }
        String::from_utf8(bytes).map_err(|error| self.stranger(&error))
    }

    /// The next part of a body; `None` at its end.
    pub(super) async fn part(&self, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = match timeout(READ_TIMEOUT, body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.map_err(|error| self.unreachable(&root_cause(&error)))?,
                Err(_) => return Err(self.silent()),
            };
            // Trailers tell nothing that is of use here.
            if let Ok(part) = frame.into_data() {
                return Ok(Some(part));
            }
        }
    }

    /// Parses what the server sent.
    pub(super) fn parse<'a, T: Deserialize<'a>>(&self, json: &'a str) -> Result<T, Failure> {
        serde_json::from_str(json).map_err(|error| self.stranger(&error))
    }

    fn stranger(&self, error: &dyn Error) -> Failure {
        // It may repeat what the server sent, lines and all.
        let error = escape(&error.to_string());
        let message = format!("{} does not answer as a task-server does: {error}", self.base);
        Failure::new(Exit::Protocol, message)
    }

    fn silent(&self) -> Failure {
        self.unreachable(&format!("it was silent for {READ_TIMEOUT:?}"))
    }

    fn unreachable(&self, reason: &str) -> Failure {
        let message = format!(
            "cannot reach {}: {reason} (--url or TASK_SERVER_URL names the server)",
            self.base
        );
        Failure::new(Exit::Unavailable, message)
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
            let message = format!("{} answers {status}, not as a task-server does", self.base);
            let is_state = exit == Exit::Data || status == StatusCode::CONFLICT;
            let stranger = if is_state { Exit::Protocol } else { exit };
            return Failure::new(stranger, message);
        };
        let mut message = match detail {
            Detail::Sentence(sentence) => escape(&sentence),
            Detail::Faults(faults) => {
                // The body is this program's business.
                let line = |fault: &Fault| match fault.loc.as_slice() {
                    [body, field @ ..] if body == "body" => fault_line(field, &fault.msg),
                    loc => fault_line(loc, &fault.msg),
                };
                let lines: Vec<_> = faults.iter().map(line).collect();
                lines.join("\n")
            }
        };
        if status == StatusCode::UNAUTHORIZED {
            message.push_str("\nthe environment variable TASK_SERVER_API_KEY names the key");
        }
        Failure::new(exit, message)
    }
}

/// Plain or over TLS, checked against the certificates that the system trusts.
fn connector(tls: bool) -> io::Result<HttpsConnector<HttpConnector>> {
    let builder = HttpsConnectorBuilder::new();
    let builder = if tls {
        builder.with_provider_and_native_roots(ring::default_provider())?
    } else {
        // The certificates take time to read, and a container may have none.
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

/// The innermost cause: those around it say no more than that.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
