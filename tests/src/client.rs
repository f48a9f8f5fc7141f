//! What does a running midair answer?
//!
//! One request a connection, byte by byte as the test wants it: broken requests are part of what has to be sent. The load test, which
//! wants speed and keep-alive, uses a real HTTP client instead.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::patience;

/// Asks one listener, with a token if it has one.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub SocketAddr, pub Option<&'static str>);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// Its body as text.
    pub body: String,
}

impl Answer {
    /// The first header of that name, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The number in `x-midair-generation: <plugin>=<n>`.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn generation(&self) -> u64 {
        let header = self.header("x-midair-generation").unwrap_or_else(|| panic!("no generation in {self:?}"));
        let number = header.rsplit_once('=').and_then(|(_, number)| number.parse().ok());
        number.unwrap_or_else(|| panic!("{header:?} isn't `plugin=n`"))
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// If it isn't.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl Client {
    /// `GET target`.
    #[must_use]
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[], "")
    }

    /// `POST target` with a JSON body.
    #[must_use]
    #[track_caller]
    pub fn post(&self, target: &str, body: &Value) -> Answer {
        self.ask("POST", target, &[("content-type", "application/json")], &body.to_string())
    }

    /// Any request whose line and headers are well-formed.
    #[must_use]
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            request.push_str(&format!("host: {}\r\n", self.0));
        }
        if let Some(token) = self.1
            && !headers.iter().any(|(name, _)| *name == "authorization")
        {
            request.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.raw(request.as_bytes())
    }

    /// Sends these bytes and reads to the end.
    ///
    /// # Panics
    ///
    /// If no whole answer comes.
    #[must_use]
    #[track_caller]
    pub fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The host may answer and close before it has read all; its answer counts.
        let sent = stream.write_all(request);
        read_answer(&mut stream).unwrap_or_else(|reason| {
            let line = String::from_utf8_lossy(request).lines().next().unwrap_or_default().to_owned();
            panic!("{line}: {reason} (sent: {sent:?})")
        })
    }

    /// A connection of one's own, for requests that are to be in flight.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    #[must_use]
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.0).unwrap_or_else(|error| panic!("{}: {error}", self.0));
        stream.set_read_timeout(Some(patience())).expect("a deadline can be set");
        stream
    }
}

/// Reads the answer that ends with its connection.
///
/// # Errors
///
/// What is wrong with it.
pub fn read_answer(stream: &mut TcpStream) -> Result<Answer, String> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| format!("no answer but {:?}, {read:?}", String::from_utf8_lossy(&bytes)))?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or("no status line")?;
    let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let headers: Vec<_> = lines.filter_map(header).collect();
    let body = &bytes[end + 4..];
    let is = |name: &str, value: &str| headers.iter().any(|header| header.0 == name && header.1 == value);
    let body = if is("transfer-encoding", "chunked") { unchunked(body)? } else { body.to_vec() };
    let body = String::from_utf8(body).map_err(|error| error.to_string())?;
    Ok(Answer { status, headers, body })
}

fn unchunked(mut rest: &[u8]) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").ok_or("a chunk without a size")?;
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or("a chunk whose size is no number")?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size).ok_or("a chunk that is cut off")?);
        rest = rest.get(end + 4 + size..).ok_or("a chunk without an end")?;
    }
}
