//! The output file of a task, whole or in part (RFC 9110, section 14), served so that it can never run as
//! a page of this server.

use std::fs::File;
use std::io::{self, SeekFrom};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_range_header::{RangeUnsatisfiableError, parse_range_header};
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::error::ApiError;
use super::output_folder;
use super::query::{self, IdFromPath};
use crate::manager::TaskManager;
use crate::task::Published;

/// Suffix of the paths of output files.
pub(super) const PATH: &str = "/output";
/// Buffer of a file being sent.
const BUFFER_BYTES: usize = 128 * 1024;
/// Keeps any file from loading or running anything.
const POLICY: &str = "default-src 'none'; sandbox; frame-ancestors 'none'";

/// Bytes of a file.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(super) struct FileBytes(#[expect(dead_code, reason = "documents the body")] Vec<u8>);

/// Get the output of a completed task.
///
/// Sends the file that is at the task's `output_file_path` now. Images, JSON and text have their own content
/// type; any other file is `application/octet-stream`.
///
/// An output that is a folder is answered with a list of its files as JSON, each with its `path` in the
/// folder and its size in `bytes`: at most 1000, in the order of their paths. Then `Content-Location` ends in
/// a slash, and `Link` leads to further files. Links and the server's own `.task-server.json` are left out.
#[utoipa::path(
    get, path = "/tasks/{task_id}/output", tag = "tasks", operation_id = "output",
    params(
        IdFromPath,
        ("after" = Option<String>, Query, description = "List the files of a folder that follow this path"),
        ("Range" = Option<String>, Header, description = "One range of bytes, such as `bytes=0-1023`"),
        ("If-Range" = Option<String>, Header,
         description = "Send the range only if this is the current ETag, otherwise the whole file"),
        ("If-None-Match" = Option<String>, Header, description = "ETag of an earlier response"),
        ("If-Modified-Since" = Option<String>, Header, description = "Last-Modified of an earlier response"),
    ),
    responses(
        (status = 200, body = FileBytes, content_type = "application/octet-stream", description = "The file, or a list of files",
         headers(("ETag" = String, description = "Version of the file"))),
        (status = 206, body = FileBytes, content_type = "application/octet-stream", description = "The range"),
        (status = 304, description = "Not modified"),
        (status = 404, body = super::error::ErrorBody,
         description = "Task not found or not completed, or no output file"),
        (status = 416, body = super::error::ErrorBody, description = "The range begins after the end of the file"),
    )
)]
pub(super) async fn get(
    State(manager): State<TaskManager>,
    IdFromPath(id): IdFromPath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = |path: &str| Some(path.to_owned());
    let after = query::only(query.as_deref(), "after", after, "expected a path")?;
    match manager.open_output(id, after).await? {
        (path, Published::File(file)) => {
            answer(&path, file, &headers).await.map_err(|error| ApiError::output_gone(&error))
        }
        (_, Published::Folder { files, next }) => {
            Ok(output_folder::list(id, files, next.as_deref()))
        }
    }
}

pub(super) async fn answer(path: &str, file: File, headers: &HeaderMap) -> io::Result<Response> {
    let file = tokio::fs::File::from_std(file);
    let metadata = file.metadata().await?;
    let (size, modified) = (metadata.len(), metadata.modified()?);
    // The inode tells a replacement from its predecessor, even within one tick of the clock.
    let nanos = modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let tag = format!("\"{:x}-{nanos:x}-{size:x}\"", metadata.ino());
    let modified = jiff::Timestamp::try_from(modified).unwrap_or_default();
    let mut response = if is_unchanged(headers, &tag, modified) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match requested_range(headers, &tag, size) {
            Some(Ok(range)) => part(file, range, size).await?,
            Some(Err(_)) => return Ok(unsatisfiable(size)),
            None => ([(header::CONTENT_LENGTH, size)], body(file, size)).into_response(),
        }
    };
    let (content_type, inline) = content_type(path);
    insert(&mut response, header::CONTENT_DISPOSITION, disposition(path, inline));
    insert(&mut response, header::ETAG, tag);
    if let Ok(modified) = DateTimePrinter::new().timestamp_to_rfc9110_string(&modified) {
        insert(&mut response, header::LAST_MODIFIED, modified);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    protect(&mut response);
    Ok(response)
}

/// Keeps caches and pages of other origins from using a response.
pub(super) fn protect(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
}

async fn part(
    mut file: tokio::fs::File,
    range: RangeInclusive<u64>,
    size: u64,
) -> io::Result<Response> {
    let (first, last) = range.into_inner();
    file.seek(SeekFrom::Start(first)).await?;
    let length = last - first + 1;
    let headers = [
        (header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}")),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((StatusCode::PARTIAL_CONTENT, headers, body(file, length)).into_response())
}

fn unsatisfiable(size: u64) -> Response {
    let detail = format!("range out of bounds: the output has {size} bytes");
    let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, detail);
    ([(header::CONTENT_RANGE, format!("bytes */{size}"))], error).into_response()
}

fn body(file: tokio::fs::File, length: u64) -> Body {
    Body::from_stream(ReaderStream::with_capacity(file.take(length), BUFFER_BYTES))
}

/// Inserts a header whose value is visible ASCII.
pub(super) fn insert(response: &mut Response, name: header::HeaderName, value: String) {
    response.headers_mut().extend(HeaderValue::try_from(value).map(|value| (name, value)));
}

/// Evaluates `If-None-Match`, else `If-Modified-Since` (RFC 9110, section 13.2.2).
fn is_unchanged(headers: &HeaderMap, tag: &str, modified: jiff::Timestamp) -> bool {
    if headers.contains_key(header::IF_NONE_MATCH) {
        return query::has_tag(headers, tag);
    }
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    let since = since.and_then(|since| DateTimeParser::new().parse_timestamp(since).ok());
    since.is_some_and(|since| modified.as_second() <= since.as_second())
}

/// Range to send, or that the file ends before it; `None` for the whole file, also if the header is
/// invalid or has several ranges, as RFC 9110 (section 14.2) allows.
fn requested_range(
    headers: &HeaderMap,
    tag: &str,
    size: u64,
) -> Option<Result<RangeInclusive<u64>, RangeUnsatisfiableError>> {
    // A date never matches: two versions can be published within its second.
    if headers.get(header::IF_RANGE).is_some_and(|condition| condition != tag) {
        return None;
    }
    let ranges = parse_range_header(headers.get(header::RANGE)?.to_str().ok()?).ok()?;
    if ranges.len() > 1 {
        return None;
    }
    // Validates to no range if it is the end of an empty file.
    ranges.validate(size).map(|mut ranges| ranges.pop()).transpose()
}

/// Content type by file name extension, and whether a browser may show the file. Formats that can carry
/// scripts (HTML, SVG, XML, PDF) are download-only.
fn content_type(path: &str) -> (&'static str, bool) {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension.to_ascii_lowercase().as_str() {
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

/// File name for downloads (RFC 6266): in ASCII for all clients, and exact for those that support it.
fn disposition(path: &str, inline: bool) -> String {
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');
    let name = path.rsplit('/').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || " ._-()".contains(c);
    let ascii: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let exact = utf8_percent_encode(name, ESCAPED);
    let disposition = if inline { "inline" } else { "attachment" };
    format!("{disposition}; filename=\"{ascii}\"; filename*=UTF-8''{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_file() {
        let range = |value: &str, size| {
            let headers = HeaderMap::from_iter([(header::RANGE, value.parse().unwrap())]);
            requested_range(&headers, "", size)
        };
        let beyond = Some(Err(RangeUnsatisfiableError::Unsatisfiable));
        for (value, expected) in [
            ("bytes=0-0", Some(Ok(0..=0))),
            ("bytes=2-5", Some(Ok(2..=5))),
            ("bytes=2-", Some(Ok(2..=9))),
            ("Bytes=2-99999999999999999999999", Some(Ok(2..=9))),
            ("bytes=-3", Some(Ok(7..=9))),
            ("bytes=-99", Some(Ok(0..=9))),
            ("bytes=10-", beyond.clone()),
            ("bytes=99999999999999999999999-", beyond.clone()),
            ("bytes=-0", beyond.clone()),
            ("bytes=5-2", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("bytes=0-1,3-4", None),
            ("lines=0-1", None),
            ("bytes", None),
        ] {
            assert_eq!(range(value, 10), expected, "{value}");
        }
        assert_eq!(range("bytes=0-", 0), beyond);
        assert_eq!(range("bytes=-1", 0), None);
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
