//! The output file of a task over HTTP: whole or a range of it (RFC 9110, section 14), and never
//! as something that could run in the name of this server.

use std::fs::File;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::error::{ApiError, ErrorBody};
use super::query::{self, IdFromPath, NoQuery};
use crate::manager::TaskManager;

/// How the paths of output files end.
pub(super) const PATH: &str = "/output";
/// What is held in memory of a file that is being sent.
const PIECE_BYTES: usize = 128 * 1024;
/// Nothing may be loaded, and nothing may run, whatever the file is.
const POLICY: &str = "default-src 'none'; sandbox; frame-ancestors 'none'";

/// The bytes of a file.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
struct FileBytes(#[expect(dead_code, reason = "it is for the OpenAPI document")] Vec<u8>);

/// Read the output file of a completed task.
///
/// The file that stands at its `output_file_path` now. Images, JSON and text say so in their content
/// type; everything else is `application/octet-stream`.
#[utoipa::path(
    get, path = "/tasks/{task_id}/output", tag = "tasks", operation_id = "output",
    params(
        ("task_id" = String, Path, description = "Names the task"),
        ("Range" = Option<String>, Header, description = "One range of bytes, such as `bytes=0-1023`"),
        ("If-Range" = Option<String>, Header,
         description = "The range only if this is still the ETag; else the whole file"),
        ("If-None-Match" = Option<String>, Header, description = "An ETag of an earlier answer"),
        ("If-Modified-Since" = Option<String>, Header, description = "The Last-Modified of an earlier answer"),
    ),
    responses(
        (status = 200, body = FileBytes, content_type = "application/octet-stream", description = "The file",
         headers(("ETag" = String, description = "Changes with the file"))),
        (status = 206, body = FileBytes, content_type = "application/octet-stream", description = "The range"),
        (status = 304, description = "Nothing has changed"),
        (status = 401, body = ErrorBody, description = "No valid API key"),
        (status = 404, body = ErrorBody,
         description = "There is no such task, it is not completed, it wrote no file, or the file is gone"),
        (status = 416, body = ErrorBody, description = "The file ends before the range begins"),
    )
)]
pub(super) async fn get(
    State(manager): State<TaskManager>,
    IdFromPath(id): IdFromPath,
    _: NoQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (path, file) = manager.open_output(id).await?;
    answer(&path, file, &headers).await.map_err(|error| {
        let detail = format!("the output cannot be read any more: {error}");
        ApiError::new(StatusCode::NOT_FOUND, detail)
    })
}

async fn answer(path: &str, file: File, headers: &HeaderMap) -> io::Result<Response> {
    let mut file = tokio::fs::File::from_std(file);
    let found = file.metadata().await?;
    let (size, modified) = (found.len(), found.modified()?);
    // A file that is put in place of another has another inode, even within one tick of the clock.
    let nanos = modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let tag = format!("\"{:x}-{nanos:x}-{size:x}\"", found.ino());
    let modified = jiff::Timestamp::try_from(modified).unwrap_or_default();
    let mut response = if is_known(headers, &tag, modified) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match asked_range(headers, &tag, size) {
            Range::Whole => {
                let body = body(file, size);
                ([(header::CONTENT_LENGTH, size)], body).into_response()
            }
            Range::Part { first, last } => {
                file.seek(SeekFrom::Start(first)).await?;
                let length = last - first + 1;
                let part = format!("bytes {first}-{last}/{size}");
                let mut response =
                    (StatusCode::PARTIAL_CONTENT, body(file, length)).into_response();
                insert(&mut response, header::CONTENT_RANGE, part);
                response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
                response
            }
            Range::Beyond => {
                let detail = format!("the output has {size} bytes, the range begins behind them");
                let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, detail);
                let mut response = error.into_response();
                insert(&mut response, header::CONTENT_RANGE, format!("bytes */{size}"));
                return Ok(response);
            }
        }
    };
    let (content_type, shown) = content_type(path);
    insert(&mut response, header::CONTENT_TYPE, content_type.to_owned());
    insert(&mut response, header::CONTENT_DISPOSITION, disposition(path, shown));
    insert(&mut response, header::ETAG, tag);
    if let Ok(modified) = DateTimePrinter::new().timestamp_to_rfc9110_string(&modified) {
        insert(&mut response, header::LAST_MODIFIED, modified);
    }
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Ok(response)
}

fn body(file: tokio::fs::File, length: u64) -> Body {
    Body::from_stream(ReaderStream::with_capacity(file.take(length), PIECE_BYTES))
}

/// Only called with text that a header can carry.
fn insert(response: &mut Response, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Whether the client already has the file as it is (RFC 9110, section 13.1).
fn is_known(headers: &HeaderMap, tag: &str, modified: jiff::Timestamp) -> bool {
    if headers.contains_key(header::IF_NONE_MATCH) {
        return query::has_tag(headers, tag);
    }
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    let since = since.and_then(|since| DateTimeParser::new().parse_timestamp(since).ok());
    since.is_some_and(|since| modified.as_second() <= since.as_second())
}

/// What is to be sent of a file.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// Both ends belong to it.
    Part {
        first: u64,
        last: u64,
    },
    /// The file ends before it begins.
    Beyond,
}

/// The range that is asked for. What makes no sense, and several ranges, mean the whole file, as
/// RFC 9110 (section 14.2) allows.
fn asked_range(headers: &HeaderMap, tag: &str, size: u64) -> Range {
    let condition = headers.get(header::IF_RANGE).map(HeaderValue::as_bytes);
    // A date never counts: two files can be published within its second.
    if condition.is_some_and(|condition| condition != tag.as_bytes()) {
        return Range::Whole;
    }
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    range.and_then(|range| parse_range(range, size)).unwrap_or(Range::Whole)
}

fn parse_range(range: &str, size: u64) -> Option<Range> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = match (number(first)?, number(last)?) {
        (Some(first), Some(last)) if first > last => return None,
        (Some(first), last) => (first, last.unwrap_or(u64::MAX)),
        // The last so many bytes.
        (None, Some(0)) => return Some(Range::Beyond),
        (None, Some(length)) => (size.saturating_sub(length), u64::MAX),
        (None, None) => return None,
    };
    if first >= size {
        return Some(Range::Beyond);
    }
    Some(Range::Part { first, last: last.min(size - 1) })
}

/// A number, or nothing where it is left out; `None` for anything else.
#[allow(clippy::option_option, reason = "left out and wrong are two things")]
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than fit are a place behind every file.
    digits.then(|| Some(text.parse().unwrap_or(u64::MAX)))
}

/// The content type by the name's ending, and whether a browser may show the file. What can carry
/// script (HTML, SVG, XML, PDF) is only ever saved.
fn content_type(path: &str) -> (&'static str, bool) {
    let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    match ending.as_str() {
        "png" => ("image/png", true),
        "jpg" | "jpeg" => ("image/jpeg", true),
        "gif" => ("image/gif", true),
        "webp" => ("image/webp", true),
        "bmp" => ("image/bmp", true),
        "tif" | "tiff" => ("image/tiff", false),
        "json" => ("application/json", true),
        "txt" | "log" | "md" => ("text/plain; charset=utf-8", true),
        "csv" => ("text/csv; charset=utf-8", false),
        _ => ("application/octet-stream", false),
    }
}

/// The name to save the file under (RFC 6266): plain for all, and exact for those who can read it.
fn disposition(path: &str, shown: bool) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || " ._-()".contains(c) { c } else { '_' })
        .collect();
    let mut exact = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => exact.push(byte.into()),
            _ => exact.push_str(&format!("%{byte:02X}")),
        }
    }
    let how = if shown { "inline" } else { "attachment" };
    format!("{how}; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_file() {
        let part = |first, last| Some(Range::Part { first, last });
        for (range, expected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-5", part(2, 5)),
            ("bytes=2-", part(2, 9)),
            ("Bytes=2-99999999999999999999999", part(2, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-99", part(0, 9)),
            ("bytes=10-", Some(Range::Beyond)),
            ("bytes=99999999999999999999999-", Some(Range::Beyond)),
            ("bytes=-0", Some(Range::Beyond)),
            ("bytes=5-2", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("bytes=0-1,3-4", None),
            ("lines=0-1", None),
            ("bytes", None),
        ] {
            assert_eq!(parse_range(range, 10), expected, "{range}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Some(Range::Beyond));
    }

    #[test]
    fn a_name_stays_in_its_quotes() {
        let header = disposition("out/a\"b\\c\r\n; d=é.html", false);
        assert_eq!(
            header,
            "attachment; filename=\"a_b_c___ d__.html\"; \
             filename*=UTF-8''a%22b%5Cc%0D%0A%3B%20d%3D%C3%A9.html"
        );
        assert_eq!(content_type("a.svg"), ("application/octet-stream", false));
        assert_eq!(content_type("A.PNG"), ("image/png", true));
        assert_eq!(content_type("json"), ("application/octet-stream", false));
    }
}
