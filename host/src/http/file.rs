//! How is a file answered that a plugin names?

use std::io;
use std::path::Path;

use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    RANGE,
};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use tower_http::services::ServeFile;
use tower_http::services::fs::ServeFileSystemResponseBody;

/// What a request says about the file that it may be answered with. Most say nothing, which costs no memory.
pub(super) struct Conditions {
    method: Method,
    headers: HeaderMap,
}

impl Conditions {
    /// Those of this request.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        static NAMES: [HeaderName; 6] = [RANGE, IF_RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE];
        let mut kept = HeaderMap::new();
        for name in &NAMES {
            if let Some(value) = headers.get(name) {
                kept.insert(name, value.clone());
            }
        }
        // A handler of another method that answers with a file answers as one of GET.
        Self { method: if *method == Method::HEAD { Method::HEAD } else { Method::GET }, headers: kept }
    }
}

/// The answer that is the file at `path`, or the range of it that is asked for. What `head` says goes before what the file says.
///
/// # Errors
///
/// Why there is none: 404 if there is no such file, or why it can't be read.
pub(super) async fn answer(
    path: &Path,
    mut conditions: Conditions,
    head: Response<()>,
) -> Result<Response<ServeFileSystemResponseBody>, (StatusCode, Option<io::Error>)> {
    let nothing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => (StatusCode::NOT_FOUND, None),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, Some(error)),
    };
    // To open a pipe or a device might wait for ever.
    if !tokio::fs::metadata(path).await.map_err(nothing)?.is_file() {
        return Err((StatusCode::NOT_FOUND, None));
    }
    let mut file = ServeFile::new(path);
    let ask = |file: &mut ServeFile, method: &Method, headers: HeaderMap| {
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.headers_mut() = headers;
        file.try_call(request)
    };
    if let Some(condition) = conditions.headers.remove(IF_RANGE) {
        // A part of what the client has: only if it is still that.
        let is = ask(&mut file, &Method::HEAD, HeaderMap::new()).await.map_err(nothing)?;
        if [ETAG, LAST_MODIFIED].iter().all(|name| is.headers().get(name) != Some(&condition)) {
            conditions.headers.remove(RANGE);
        }
    }
    let mut answer = ask(&mut file, &conditions.method, conditions.headers).await.map_err(nothing)?;
    if answer.status() == StatusCode::OK {
        *answer.status_mut() = head.status();
    }
    for (name, value) in head.headers() {
        if name != CONTENT_RANGE && name != CONTENT_LENGTH {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    Ok(answer)
}
