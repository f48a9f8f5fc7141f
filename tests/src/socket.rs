//! What does somebody get who talks over a WebSocket?
//!
//! A real client, one message at a time. What no client would do is done on [`stream`](Socket::stream), below it.

use std::net::TcpStream;
use std::time::Instant;

use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderName;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocket};
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, client};

use crate::client::Client;
use crate::patience;

/// A WebSocket that is open.
pub struct Socket(WebSocket<TcpStream>);

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message: text, or bytes shown as such.
    Message(String),
    /// The end, with its code and reason.
    Closed(u16, String),
    /// The connection is gone without a word.
    Gone,
}

impl Client {
    /// Opens a WebSocket.
    ///
    /// # Panics
    ///
    /// If it is refused.
    #[must_use]
    #[track_caller]
    pub fn socket(&self, target: &str) -> Socket {
        self.upgrade(target, &[]).unwrap_or_else(|(status, text)| panic!("{target}: {status} {text}"))
    }

    /// Opens a WebSocket with these headers.
    ///
    /// # Errors
    ///
    /// The status and the text of the answer, if it is another.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    #[track_caller]
    pub fn upgrade(&self, target: &str, headers: &[(&str, &str)]) -> Result<Socket, (u16, String)> {
        let mut request = format!("ws://{}{target}", self.0).into_client_request().expect("a request");
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a header's name");
            request.headers_mut().insert(name, value.parse().expect("a header's value"));
        }
        match client(request, self.connect()) {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(HandshakeError::Failure(Error::Http(answer))) => {
                let text = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
                Err((answer.status().as_u16(), text))
            }
            Err(error) => panic!("{target}: {error}"),
        }
    }
}

impl Socket {
    /// Sends text.
    ///
    /// # Panics
    ///
    /// If the connection is gone.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("it can be sent");
    }

    /// Sends text, and passes over that it can't.
    pub fn try_send(&mut self, text: &str) {
        let _ = self.0.send(Message::text(text));
    }

    /// Sends bytes.
    ///
    /// # Panics
    ///
    /// If the connection is gone.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.send(Message::binary(bytes.to_vec())).expect("it can be sent");
    }

    /// What comes next, pings apart.
    ///
    /// # Panics
    ///
    /// If nothing comes in time.
    #[track_caller]
    pub fn hear(&mut self) -> Heard {
        let until = Instant::now() + patience();
        loop {
            assert!(Instant::now() < until, "nothing comes but pings");
            return match self.0.read() {
                Ok(Message::Text(text)) => Heard::Message(text.to_string()),
                Ok(Message::Binary(bytes)) => Heard::Message(format!("{bytes:?}")),
                Ok(Message::Close(frame)) => {
                    let frame = frame.unwrap_or(CloseFrame { code: 1005.into(), reason: "".into() });
                    Heard::Closed(frame.code.into(), frame.reason.to_string())
                }
                Ok(_) => continue,
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("nothing comes"),
                Err(_) => Heard::Gone,
            };
        }
    }

    /// The next message's text.
    ///
    /// # Panics
    ///
    /// If something else comes, or nothing.
    #[track_caller]
    pub fn text(&mut self) -> String {
        match self.hear() {
            Heard::Message(text) => text,
            other => panic!("no message but {other:?}"),
        }
    }

    /// Sends text and waits for the next message.
    ///
    /// # Panics
    ///
    /// As [`send`](Self::send) and [`text`](Self::text).
    #[track_caller]
    pub fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.text()
    }

    /// Says that this is the end, and waits until the other side has said it too.
    ///
    /// # Panics
    ///
    /// If something else comes.
    #[track_caller]
    pub fn close(mut self, code: u16, reason: &str) {
        self.0.close(Some(CloseFrame { code: code.into(), reason: reason.to_owned().into() })).expect("it can be said");
        assert_eq!(self.hear(), Heard::Closed(code, reason.to_owned()));
    }

    /// What is below.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }
}
