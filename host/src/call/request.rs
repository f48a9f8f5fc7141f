//! What does the host keep of a request while a handler has it?

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method};
use midair_abi::Parts;

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
