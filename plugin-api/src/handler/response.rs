//! What can a handler return?

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_core::Stream;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use midair_abi::Outcome;
use midair_abi::stream::{self, Pieces};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::glue::operation::Operation;
use crate::handler::body::BodyStream;

/// A status, headers and a body: a whole one, one that is [streamed](Self::stream), or a [file](Self::file).
///
/// Most handlers return something that turns into one: see [`IntoResponse`].
#[derive(Debug, Default)]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    /// An error whose text the client must not see outside of development.
    secret: bool,
}

#[derive(Debug)]
enum Body {
    Whole(Bytes),
    Stream(BodyStream),
    File(PathBuf),
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

static NOTHING: Bytes = Bytes::new();

impl Response {
    /// A response without headers.
    #[must_use]
    pub fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::new(), body: Body::Whole(body.into()), secret: false }
    }

    /// A response whose body is made piece by piece, each when the client has taken those before: 200 without headers.
    ///
    /// It stays on the code that began it until it ends, whatever is swapped meanwhile, and counts as in flight. The stream is dropped
    /// at its end, or when the client goes. An error or a panic in it breaks the connection off, so that the client doesn't take what it
    /// has for the whole.
    ///
    /// ```
    /// use std::pin::Pin;
    /// use std::task::{Context, Poll};
    ///
    /// use midair_plugin::{Plugin, Response, Result, Stream, test::App};
    ///
    /// struct Countdown(u32);
    ///
    /// impl Stream for Countdown {
    ///     type Item = Result<String>;
    ///
    ///     fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<String>>> {
    ///         self.0 -= 1;
    ///         Poll::Ready((self.0 > 0).then(|| Ok(format!("{}\n", self.0))))
    ///     }
    /// }
    ///
    /// let app = App::new(Plugin::new().get("/", |_, _| Response::stream(Countdown(3))));
    /// assert_eq!(app.get("/").bytes().wait()?, "2\n1\n");
    /// # Ok::<(), midair_plugin::Error>(())
    /// ```
    #[must_use]
    pub fn stream<S, B, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes>,
        E: Into<Error>,
    {
        Self { body: Body::Stream(BodyStream::ours(stream)), ..Self::default() }
    }

    /// A file of the host's system as the answer; see [`File`].
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { body: Body::File(path.into()), ..Self::default() }
    }

    /// Sets a header; one that was set before is replaced.
    ///
    /// # Errors
    ///
    /// If the name or the value isn't allowed in HTTP.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Result<Self> {
        self.headers.insert(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value.as_ref())?);
        Ok(self)
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The headers, to be changed.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The body, if it is whole; empty if it is streamed (see [`bytes`](Self::bytes)) or a file.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        if let Body::Whole(body) = &self.body { body } else { &NOTHING }
    }

    /// The whole body as text; what isn't UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body()).into_owned()
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    ///
    /// If it isn't JSON, or not of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(self.body())?)
    }

    /// The body to its end, whether it is whole or streamed. One that never ends is never had.
    ///
    /// # Errors
    ///
    /// What the body broke off with; 500 if it is a [file](Self::file_path).
    pub fn bytes(self) -> Operation<impl Future<Output = Result<Bytes>> + Send + 'static> {
        Operation::new(async move {
            match self.body {
                Body::Whole(body) => Ok(body),
                Body::Stream(body) => body.collect().await,
                Body::File(path) => Err(Error::internal(format!("the body is the file {}, which the host reads", path.display()))),
            }
        })
    }

    /// The body piece by piece, whether it is whole or streamed; nothing if it is a [file](Self::file_path).
    pub fn into_stream(self) -> BodyStream {
        match self.body {
            Body::Whole(body) => BodyStream::whole(body),
            Body::Stream(body) => body,
            Body::File(_) => BodyStream::empty(),
        }
    }

    /// Which file the body is, if it is one.
    #[must_use]
    pub fn file_path(&self) -> Option<&Path> {
        if let Body::File(path) = &self.body { Some(path) } else { None }
    }

    fn typed(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Self::new(StatusCode::OK, body);
        response.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    /// As a caller by `ctx.call` sees it: an error that isn't the client's is an error.
    pub(crate) fn seen_by_caller(self) -> Result<Self> {
        if self.secret { Err(Error::internal(self.text())) } else { Ok(self) }
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        if self.secret {
            return Outcome::told(Outcome::ERROR, self.status.as_u16(), self.text(), &[]);
        }
        // `drain` gives a name for each first value of several and `None` for the ones after it.
        let mut last = None;
        let named = |(name, value): (Option<HeaderName>, HeaderValue)| {
            last = name.or_else(|| last.take());
            last.clone().map(|name| (Text(name), value))
        };
        let headers: Vec<(Text, HeaderValue)> = self.headers.into_iter().filter_map(named).collect();
        let status = self.status.as_u16();
        match self.body {
            Body::Whole(body) => Outcome::response(status, headers, body),
            Body::Stream(body) => stream::give(Outcome::response(status, headers, NOTHING.clone()), body.into_source(), None),
            Body::File(path) => Outcome::file(status, headers, path.into_os_string().into_vec()),
        }
    }

    pub(crate) fn from_outcome(outcome: Outcome) -> Result<Self> {
        match outcome.kind() {
            Outcome::DONE | Outcome::FILE => {}
            Outcome::PANIC => return Err(Error::internal(format!("the called handler panicked: {}", outcome.text()))),
            _ => return Err(Error::internal(outcome.text())),
        }
        let mut response = Self::new(StatusCode::from_u16(outcome.status())?, NOTHING.clone());
        for (name, value) in outcome.pairs() {
            response.headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_bytes(value)?);
        }
        response.body = if outcome.kind() == Outcome::FILE {
            Body::File(OsString::from_vec(outcome.body().to_vec()).into())
        } else {
            match Pieces::take(outcome) {
                Ok(pieces) => Body::Stream(BodyStream::theirs(pieces)),
                Err(whole) => Body::Whole(Bytes::copy_from_slice(whole.body())),
            }
        };
        Ok(response)
    }
}

struct Text(HeaderName);

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.0.as_str()
    }
}

/// What can be turned into a response.
///
/// Text, bytes, [`Json`], [`Html`], [`Redirect`], [`File`], [`Sse`](crate::handler::sse::Sse), a [`BodyStream`], a [`StatusCode`]; tuples `(StatusCode, T)`, `([(name, value); N], T)` and
/// `(StatusCode, [(name, value); N], T)`; a [`Response`]; a `Result` of two of them, [`Error`] among them.
///
/// ```
/// use midair_plugin::{IntoResponse, Json, StatusCode};
///
/// let response = (StatusCode::CREATED, [("location", "/ab")], Json("ab")).into_response();
/// assert_eq!((response.status().as_u16(), response.text()), (201, "\"ab\"".to_owned()));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be turned into a response",
    label = "this is what the handler returns",
    note = "return text, bytes, `Json(value)`, `Redirect`, `StatusCode`, `(StatusCode, T)`, a `Response`, or a `Result` of these"
)]
pub trait IntoResponse {
    /// The response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Response {
        Response::default()
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        Response::new(self, Bytes::new())
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::typed("text/plain; charset=utf-8", self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::typed("text/plain; charset=utf-8", self)
    }
}

impl IntoResponse for &'static [u8] {
    fn into_response(self) -> Response {
        Response::typed("application/octet-stream", self)
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        Response::typed("application/octet-stream", self)
    }
}

impl IntoResponse for Bytes {
    fn into_response(self) -> Response {
        Response::typed("application/octet-stream", self)
    }
}

/// A value as JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => Response::typed("application/json", body),
            Err(error) => Error::internal(format!("the answer can't be written as JSON: {error}")).into_response(),
        }
    }
}

/// A file of the host's system as an answer: the host reads it, and nothing of it crosses into the plugin.
///
/// Ranges and conditions of the request are obeyed, and the content type is that of the name, unless the handler sets one. If there is no
/// such file the answer is 404. Which file it may be is for the handler to decide: a path that a client names must be judged before.
///
/// ```
/// use midair_plugin::{Plugin, File};
///
/// let plugin = Plugin::new().get("/manual", |_, _| ([("cache-control", "max-age=60")], File::open("/srv/manual.pdf")));
/// ```
#[derive(Clone, Debug)]
pub struct File(PathBuf);

impl File {
    /// The file at `path`, which the host opens once the handler has answered. A relative path begins where the host was started.
    #[must_use]
    pub fn open(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl IntoResponse for File {
    fn into_response(self) -> Response {
        Response::file(self.0)
    }
}

impl IntoResponse for BodyStream {
    fn into_response(self) -> Response {
        Response { body: Body::Stream(self), ..Response::default() }
    }
}

/// A page.
#[derive(Clone, Debug)]
pub struct Html<T>(pub T);

impl<T: Into<Bytes>> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        Response::typed("text/html; charset=utf-8", self.0)
    }
}

/// Sends the client elsewhere.
#[derive(Clone, Debug)]
pub struct Redirect {
    status: StatusCode,
    to: String,
}

impl Redirect {
    /// 303: to be fetched with GET, as after a form.
    #[must_use]
    pub fn to(to: impl Into<String>) -> Self {
        Self { status: StatusCode::SEE_OTHER, to: to.into() }
    }

    /// 307: the same request again elsewhere, this time.
    #[must_use]
    pub fn temporary(to: impl Into<String>) -> Self {
        Self { status: StatusCode::TEMPORARY_REDIRECT, to: to.into() }
    }

    /// 308: the same request again elsewhere, from now on.
    #[must_use]
    pub fn permanent(to: impl Into<String>) -> Self {
        Self { status: StatusCode::PERMANENT_REDIRECT, to: to.into() }
    }
}

impl IntoResponse for Redirect {
    fn into_response(self) -> Response {
        match HeaderValue::try_from(self.to) {
            Ok(to) => {
                let mut response = Response::new(self.status, Bytes::new());
                response.headers.insert(LOCATION, to);
                response
            }
            Err(_) => Error::internal("the address of a redirect holds bytes that no header may").into_response(),
        }
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        let mut response = self.1.into_response();
        response.status = self.0;
        response
    }
}

impl<const N: usize, K: AsRef<str>, V: AsRef<str>, T: IntoResponse> IntoResponse for ([(K, V); N], T) {
    fn into_response(self) -> Response {
        let response = self.1.into_response();
        let set = |response: Response, (name, value): (K, V)| response.header(name.as_ref(), value);
        self.0.into_iter().try_fold(response, set).unwrap_or_else(IntoResponse::into_response)
    }
}

impl<const N: usize, K: AsRef<str>, V: AsRef<str>, T: IntoResponse> IntoResponse for (StatusCode, [(K, V); N], T) {
    fn into_response(self) -> Response {
        (self.0, (self.1, self.2)).into_response()
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.to_string()).into_response();
        response.secret = !self.is_public();
        response
    }
}
