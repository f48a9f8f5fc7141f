//! What does somebody get who keeps asking?
//!
//! [`client`](crate::client) sends one request a connection, as odd as a test wants it. Whoever asks a thousand times a second does what
//! real clients do: a real HTTP client, and connections that are kept.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

use crate::client::Client;

/// One connection at a time, kept as long as it works.
pub struct Asker {
    address: SocketAddr,
    token: Option<&'static str>,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

/// An answer that came whole.
#[derive(Debug)]
pub struct Whole {
    /// Its status.
    pub status: u16,
    /// What stands in `x-midair-generation: <plugin>=<n>`, if it does.
    pub generation: Option<u64>,
    /// Its body.
    pub body: Bytes,
}

/// Why no whole answer came.
pub type Lost = Box<dyn std::error::Error + Send + Sync>;

impl Asker {
    /// Connects when it first asks.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, token: None, connection: None }
    }

    /// Asks as this one does, with its token.
    #[must_use]
    pub fn of(client: Client) -> Self {
        Self { address: client.0, token: client.1, connection: None }
    }

    /// `GET path`. It must run inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// Why no whole answer came. The next request has a connection of its own then.
    pub async fn get(&mut self, path: &str) -> Result<Whole, Lost> {
        let answer = self.exchange("GET", path).await;
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    /// `POST path` without a body; as [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn post(&mut self, path: &str) -> Result<Whole, Lost> {
        let answer = self.exchange("POST", path).await;
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn exchange(&mut self, method: &str, path: &str) -> Result<Whole, Lost> {
        let sender = match &mut self.connection {
            Some(sender) => sender,
            connection => {
                let stream = tokio::net::TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                let (sender, work) = handshake(TokioIo::new(stream)).await?;
                tokio::spawn(work);
                connection.insert(sender)
            }
        };
        sender.ready().await?;
        let mut request = hyper::Request::builder().method(method).uri(path).header("host", self.address.to_string());
        if let Some(token) = self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Empty::new())?).await?;
        let (status, headers) = (response.status().as_u16(), response.headers());
        let generation =
            headers.get("x-midair-generation").and_then(|header| header.to_str().ok()?.rsplit_once('=')?.1.parse().ok());
        Ok(Whole { status, generation, body: response.into_body().collect().await?.to_bytes() })
    }
}
