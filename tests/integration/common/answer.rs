//! Responses, read completely.

use std::fmt;

use reqwest::Response;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// One response of the server.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body as JSON; null if it is not JSON.
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(super) async fn read(response: Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Self { status, headers, body, text }
    }

    /// Value of a header; empty if absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Message of an error response, after checks of its status and shape.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{self}");
        assert!(self.header("content-type").starts_with("application/json"), "{self}");
        let Some(detail) = self.body["detail"].as_str() else { panic!("no error message: {self}") };
        detail
    }

    /// Errors of a 422, each as `type loc.loc: message`, sorted.
    #[track_caller]
    pub(crate) fn faults(&self) -> Vec<String> {
        assert_eq!(self.status, 422, "{self}");
        assert!(self.header("content-type").starts_with("application/json"), "{self}");
        let Some(faults) = self.body["detail"].as_array() else {
            panic!("no list of errors: {self}")
        };
        assert!(!faults.is_empty(), "{self}");
        let mut faults: Vec<_> = faults.iter().map(|fault| self.fault(fault)).collect();
        faults.sort();
        faults
    }

    /// The only error of a 422, as `type loc.loc: message`.
    #[track_caller]
    pub(crate) fn only_fault(&self) -> String {
        let mut faults = self.faults();
        assert_eq!(faults.len(), 1, "{self}");
        faults.remove(0)
    }

    #[track_caller]
    fn fault(&self, fault: &Value) -> String {
        assert!(fault.get("input").is_some(), "an error without its input: {self}");
        let (Some(kind), Some(loc), Some(msg)) =
            (fault["type"].as_str(), fault["loc"].as_array(), fault["msg"].as_str())
        else {
            panic!("an error of another shape: {self}");
        };
        let step = |step: &Value| step.as_str().map_or_else(|| step.to_string(), str::to_owned);
        let loc: Vec<_> = loc.iter().map(step).collect();
        format!("{kind} {}: {msg}", loc.join("."))
    }

    /// Path and query of `Link: <…>; rel="next"`.
    pub(crate) fn next_page(&self) -> Option<&str> {
        let (target, _) = self.header("link").split_once(">; rel=\"next\"")?;
        let target = target.rsplit_once('<')?.1;
        target.find("/tasks").map(|path| &target[path..])
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}\n{}", self.status, self.headers, self.text)
    }
}
