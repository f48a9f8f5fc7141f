//! What does a handler get to know about the request?

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::OnceLock;

use bytes::Bytes;
use futures_core::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use midair_abi::stream::Pieces;
use midair_abi::{self as abi, Parts};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StatusCode;
use crate::error::{Error, Result};
use crate::handler::body::BodyStream;

/// An HTTP request. Its body has been read, unless its route is [streamed](crate::Plugin::streamed).
///
/// A request that came over the wire is read in place: nothing is copied before a handler asks for it.
pub struct Request {
    wire: abi::Request,
    method: Method,
    headers: OnceLock<HeaderMap>,
    /// What is left of a body that comes in pieces, or is taken so.
    rest: Option<BodyStream>,
}

impl Request {
    pub(crate) fn from_wire(mut wire: abi::Request) -> Self {
        let method = Method::from_bytes(wire.method().as_bytes()).unwrap_or_default();
        let rest = Pieces::take_of(&mut wire).map(BodyStream::theirs);
        Self { wire, method, headers: OnceLock::new(), rest }
    }

    pub(crate) fn into_wire(self) -> abi::Request {
        match self.rest {
            None => self.wire,
            Some(rest) => rest.into_pieces().give_with(self.wire),
        }
    }

    /// What is left of the body, if it comes in pieces or was taken so.
    pub(crate) fn take_rest(&mut self) -> Option<BodyStream> {
        self.rest.take()
    }

    /// A request to be sent, by [`Ctx::call`](crate::Ctx::call) or in a test: `Request::build("POST", "/links?dry=1")`.
    #[must_use]
    pub fn build(method: &str, target: &str) -> RequestBuilder {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts = Method::from_bytes(method.as_bytes()).map_err(Error::from).map(|method| RequestParts {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            params: Vec::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            peer: None,
        });
        RequestBuilder { parts, rest: None }
    }

    /// `GET`, `POST`, ..
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path as it was sent, percent-encoded.
    #[must_use]
    pub fn path(&self) -> &str {
        self.wire.path()
    }

    /// What follows `?`, percent-encoded; empty if there is nothing.
    #[must_use]
    pub fn query_str(&self) -> &str {
        self.wire.query()
    }

    /// The other end of the connection. `None` in tests and for requests that a handler made.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.wire.peer()
    }

    /// The parameter `{name}` of the route, decoded and parsed.
    ///
    /// # Errors
    ///
    /// 400 if it doesn't parse, 500 if the route has no such parameter.
    pub fn param<T: FromStr>(&self, name: &str) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        let Some((_, value)) = self.wire.params().find(|(param, _)| *param == name) else {
            return Err(Error::internal(format!("the route has no parameter `{{{name}}}`")));
        };
        value.parse().map_err(|error| Error::bad_request(format!("`{value}` in the path isn't a valid {name}: {error}")))
    }

    /// A parameter that the host added, which no path can name.
    pub(crate) fn hidden(&self, name: &str) -> Option<&str> {
        self.wire.params().find(|(param, _)| *param == name).map(|(_, value)| value)
    }

    /// All parameters of the route as fields of a struct.
    ///
    /// # Errors
    ///
    /// 400 with the reason if they don't fit.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T> {
        let pairs: Vec<(&str, &str)> = self.wire.params().filter(|(name, _)| !name.starts_with(':')).collect();
        let text = serde_urlencoded::to_string(pairs)?;
        serde_urlencoded::from_str(&text).map_err(|error| Error::bad_request(format!("the path doesn't fit: {error}")))
    }

    /// The query as a struct; absent keys need a `#[serde(default)]` or an `Option`.
    ///
    /// # Errors
    ///
    /// 400 with the reason if it isn't UTF-8 or doesn't fit.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T> {
        decodable(self.query_str().as_bytes()).map_err(|text| Error::bad_request(format!("the query {text}")))?;
        serde_urlencoded::from_str(self.query_str()).map_err(|error| Error::bad_request(format!("the query doesn't fit: {error}")))
    }

    /// The first value of a header; `None` if it is absent or no text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.wire.headers().find(|(header, _)| header.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        self.headers.get_or_init(|| {
            let valid = |(name, value): (&str, &[u8])| {
                Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
            };
            let mut headers = HeaderMap::new();
            for (name, value) in self.wire.headers().filter_map(valid) {
                headers.append(name, value);
            }
            headers
        })
    }

    /// The whole body; empty if the route is [streamed](crate::Plugin::streamed).
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.wire.body()
    }

    /// The next piece of the body; `None` at its end. What isn't asked for isn't read from the client. A body that was read before comes
    /// as one piece.
    ///
    /// ```
    /// use midair_plugin::{Ctx, Plugin, Request, Result};
    ///
    /// async fn size(mut req: Request, _: Ctx) -> Result<String> {
    ///     let mut size = 0;
    ///     while let Some(piece) = req.chunk().await? {
    ///         size += piece.len();
    ///     }
    ///     Ok(size.to_string())
    /// }
    ///
    /// let plugin = Plugin::new().post("/upload", size).streamed().body_limit(1 << 30);
    /// ```
    ///
    /// # Errors
    ///
    /// 413 if the body is larger than the route's limit, 408 if the client takes too long, 400 if it hangs up. Nothing follows then.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.rest().chunk().await
    }

    /// What is left of the body, to be taken elsewhere: returned as an answer, or read beside something else. The request has none then.
    pub fn body_stream(&mut self) -> BodyStream {
        std::mem::replace(self.rest(), BodyStream::empty())
    }

    fn rest(&mut self) -> &mut BodyStream {
        let Self { rest, wire, .. } = self;
        rest.get_or_insert_with(|| BodyStream::whole(Bytes::copy_from_slice(wire.body())))
    }

    /// The body as text.
    ///
    /// # Errors
    ///
    /// 400 if it isn't UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(self.body()).map_err(|error| Error::bad_request(format!("the body isn't UTF-8: {error}")))
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// 415 if the content type isn't JSON, 400 if the body isn't, 422 with the field's path if it doesn't fit the type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let is_json = |kind: &str| kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
        if !is_json(&self.content_type()) {
            return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected a body with `content-type: application/json`"));
        }
        let mut reader = serde_json::Deserializer::from_slice(self.body());
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let status = match error.inner().classify() {
                serde_json::error::Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::BAD_REQUEST,
            };
            Error::new(status, format!("the body doesn't fit: {error}"))
        })?;
        reader.end().map_err(|error| Error::bad_request(format!("the body holds more than one JSON value: {error}")))?;
        Ok(value)
    }

    /// The body as an HTML form.
    ///
    /// # Errors
    ///
    /// 415 if the content type isn't that of a form, 400 if it isn't UTF-8, 422 with the reason if it doesn't fit the type.
    pub fn form<T: DeserializeOwned>(&self) -> Result<T> {
        if self.content_type() != "application/x-www-form-urlencoded" {
            let text = "expected a body with `content-type: application/x-www-form-urlencoded`";
            return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        decodable(self.body()).map_err(|text| Error::bad_request(format!("the form {text}")))?;
        let misfit = |error| Error::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the form doesn't fit: {error}"));
        serde_urlencoded::from_bytes(self.body()).map_err(misfit)
    }

    /// The content type without its parameters, in lower case.
    fn content_type(&self) -> String {
        let whole = self.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        whole.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// Whether percent-encoded text is UTF-8. The decoder behind forms and queries would put replacement characters instead.
fn decodable(text: &[u8]) -> Result<(), &'static str> {
    percent_encoding::percent_decode(text).decode_utf8().map(drop).map_err(|_| "isn't UTF-8")
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path())
    }
}

/// Puts a request together; mistakes on the way are told by [`finish`](Self::finish).
pub struct RequestBuilder {
    parts: Result<RequestParts>,
    rest: Option<BodyStream>,
}

impl RequestBuilder {
    /// Adds a header.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.and(|parts| {
            parts.headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
            Ok(())
        })
    }

    /// Sets the body.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        self.and(|parts| {
            parts.body = body.into();
            Ok(())
        })
    }

    /// Sets a body that is made piece by piece. A handler that wants it whole is called when all of it is there.
    #[must_use]
    pub fn stream<S, B, E>(mut self, body: S) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes>,
        E: Into<Error>,
    {
        self.rest = Some(BodyStream::ours(body));
        self
    }

    /// Sets the body and its content type.
    #[must_use]
    pub fn json(self, value: &impl Serialize) -> Self {
        self.and(|parts| {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            parts.body = serde_json::to_vec(value)?.into();
            Ok(())
        })
    }

    /// Sets a parameter of the route, for tests that call a handler without its route.
    #[must_use]
    pub fn param(self, name: &str, value: &str) -> Self {
        self.and(|parts| {
            parts.params.push((name.to_owned(), value.to_owned()));
            Ok(())
        })
    }

    /// The request.
    ///
    /// # Errors
    ///
    /// The first mistake: a method or header that HTTP doesn't allow, or a body that can't be written as JSON.
    pub fn finish(self) -> Result<Request> {
        let request = Request::from_wire(abi::Request::new(self.parts?));
        Ok(Request { rest: self.rest, ..request })
    }

    fn and(self, change: impl FnOnce(&mut RequestParts) -> Result<()>) -> Self {
        Self { parts: self.parts.and_then(|mut parts| change(&mut parts).map(|()| parts)), rest: self.rest }
    }
}

/// What a request is made of.
pub(crate) struct RequestParts {
    /// `GET`, `POST`, ..
    pub(crate) method: Method,
    /// The path as it was sent, percent-encoded.
    pub(crate) path: String,
    /// What follows `?`, percent-encoded.
    pub(crate) query: String,
    /// The path's parameters by name, decoded.
    pub(crate) params: Vec<(String, String)>,
    /// All headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
    /// The other end of the connection.
    pub(crate) peer: Option<SocketAddr>,
}

impl Parts for RequestParts {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> &str {
        &self.query
    }

    fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }

    fn body(&self) -> &[u8] {
        &self.body
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }
}
