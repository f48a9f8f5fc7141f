//! What comes over a WebSocket, and how does it end?

use bytes::Bytes;
use midair_abi::SocketOp;
use midair_abi::store::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::handler::request::Request;

/// A message of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
}

impl Message {
    pub(crate) fn of(request: &Request) -> Self {
        match request.hidden(SocketOp::EVENT) {
            Some(SocketOp::EVENT_TEXT) => Self::Text(String::from_utf8_lossy(request.body()).into_owned()),
            _ => Self::Binary(Bytes::copy_from_slice(request.body())),
        }
    }

    pub(crate) fn received(row: Row) -> Self {
        match u32::try_from(row.number) {
            Ok(SocketOp::TEXT) => Self::Text(String::from_utf8_lossy(&row.bytes).into_owned()),
            _ => Self::Binary(row.bytes.into()),
        }
    }

    /// A value as JSON, in a text message.
    ///
    /// # Errors
    ///
    /// If it can't be written as JSON.
    pub fn of_json(value: &impl Serialize) -> Result<Self> {
        Ok(Self::Text(serde_json::to_string(value)?))
    }

    /// Its bytes, of text as well.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Its text.
    ///
    /// # Errors
    ///
    /// 400 if it is binary and isn't UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(self.bytes()).map_err(|error| Error::bad_request(format!("the message isn't UTF-8: {error}")))
    }

    /// It as JSON.
    ///
    /// # Errors
    ///
    /// 400 if it isn't, or doesn't fit the type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.bytes()).map_err(|error| Error::bad_request(format!("the message doesn't fit: {error}")))
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The code of RFC 6455: 1000 for a plain end, 1005 if the client gave none, 1006 if the connection broke.
    pub code: u16,
    /// The reason that was given.
    pub reason: String,
}

impl Closed {
    pub(crate) fn of(request: &Request) -> Self {
        let code = request.hidden(SocketOp::CODE).and_then(|code| code.parse().ok()).unwrap_or(1006);
        Self { code, reason: String::from_utf8_lossy(request.body()).into_owned() }
    }
}
