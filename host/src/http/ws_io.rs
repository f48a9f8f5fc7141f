//! How do a WebSocket's bytes become messages, and its queue bytes?
//!
//! What is read and what is written go on beside each other, on one task. It knows the connection and its limits, and no plugin.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as Broken, Message, Utf8Bytes};

use crate::resources::sockets::{Cause, Connection, End, Next, Payload};

/// How long a client has to say that it heard of the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// How much is read and thrown away after the end, so that a client that sends before it listens hears of it.
const DISCARDED: usize = 16 << 20;

/// What is kept of what comes and goes, beside messages. Small, as there may be many connections.
const BUFFER: usize = 8 << 10;

/// What a WebSocket may do, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct SocketLimits {
    /// The largest message of a client, in bytes; a larger one ends its connection with 1009.
    pub message: usize,
    /// How many messages wait for a client at most, and
    pub queue: usize,
    /// of how many bytes. A message that alone is larger is taken when nothing else waits.
    pub queue_bytes: usize,
    /// How often the host pings.
    pub ping: Duration,
    /// For how long a client may be silent; its answers to pings count. Not counted is while the host doesn't listen, since earlier messages
    /// wait to be handled.
    pub silence: Duration,
}

impl Default for SocketLimits {
    fn default() -> Self {
        Self { message: 1 << 20, queue: 256, queue_bytes: 4 << 20, ping: Duration::from_secs(30), silence: Duration::from_secs(60) }
    }
}

/// Carries bytes until there are none any more.
pub(super) async fn carry<S: AsyncRead + AsyncWrite + Unpin>(io: S, connection: &Connection, limits: &SocketLimits) {
    let mut config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(BUFFER);
    config = config.max_message_size(Some(limits.message)).max_frame_size(Some(limits.message));
    let (mut sink, mut stream) = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await.split();
    let can_listen = {
        let (write, read) = (write(&mut sink, connection, limits.ping), read(&mut stream, connection, limits.silence));
        tokio::pin!(write, read);
        tokio::select! {
            written = &mut write => match written {
                // The client says it too, unless it has.
                Ok(()) => timeout(FAREWELL, read).await.is_ok(),
                Err(Broken::Io(error)) if error.kind() == ErrorKind::TimedOut => {
                    connection.end(Cause::Stalled, 1006, "it takes nothing");
                    false
                }
                Err(_) => {
                    connection.end(Cause::Broken, 1006, "");
                    false
                }
            },
            () = &mut read => timeout(FAREWELL, write).await.is_ok(),
        }
    };
    // Whoever handles the end needn't wait for the rest.
    connection.over();
    if let Ok(stream) = sink.reunite(stream)
        && can_listen
    {
        let _ = timeout(FAREWELL, discard(stream.into_inner())).await;
    }
}

/// Writes what is queued, and pings, until the end is written.
async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    connection: &Connection,
    ping: Duration,
) -> Result<(), Broken> {
    let mut ping = interval_at(Instant::now() + ping, ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            biased;
            next = connection.to_write() => next,
            _ = ping.tick() => {
                sink.send(Message::Ping(Bytes::new())).await?;
                continue;
            }
        };
        match next {
            Next::Send(payload) => {
                sink.feed(message(payload)).await?;
                if !connection.written() {
                    sink.flush().await?;
                }
            }
            Next::End(End { code: 1005 | 1006, .. }) | Next::End(End { cause: Cause::Client, .. }) => return sink.flush().await,
            Next::End(End { code, reason, .. }) => {
                return sink.send(Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))).await;
            }
        }
    }
}

/// Reads until nothing comes any more. What comes after the client's own end is nothing.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut SplitStream<WebSocketStream<S>>,
    connection: &Connection,
    silence: Duration,
) {
    loop {
        let (is_text, bytes) = match timeout(silence, stream.next()).await {
            Err(_) => return connection.end(Cause::Silent, 1006, "it is silent"),
            Ok(Some(Ok(Message::Text(text)))) => (true, text.into()),
            Ok(Some(Ok(Message::Binary(bytes)))) => (false, bytes),
            Ok(Some(Ok(Message::Close(frame)))) => {
                let (code, reason) = frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                connection.end(Cause::Client, code, &reason);
                continue;
            }
            Ok(Some(Ok(_))) => continue,
            Ok(Some(Err(Broken::Capacity(CapacityError::MessageTooLong { max_size, .. })))) => {
                return connection.end(Cause::Broken, 1009, &format!("a message has at most {max_size} bytes"));
            }
            Ok(Some(Err(Broken::Utf8(_)))) => return connection.end(Cause::Broken, 1007, "text is UTF-8"),
            Ok(Some(Err(Broken::Protocol(error)))) if error != ProtocolError::ResetWithoutClosingHandshake => {
                return connection.end(Cause::Broken, 1002, &error.to_string());
            }
            Ok(Some(Err(_)) | None) => return connection.end(Cause::Broken, 1006, ""),
        };
        connection.hand(Payload { is_text, bytes }).await;
    }
}

fn message(Payload { is_text, bytes }: Payload) -> Message {
    if !is_text {
        return Message::Binary(bytes);
    }
    // It was UTF-8 when it was a plugin's; what another made that isn't goes as bytes.
    match Utf8Bytes::try_from(bytes.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(bytes),
    }
}

/// Reads to the end what a client still sends: to close before would cost it what it hasn't read yet.
async fn discard(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    if io.shutdown().await.is_err() {
        return;
    }
    let (mut buffer, mut left) = (vec![0; BUFFER], DISCARDED);
    while let Ok(read @ 1..) = io.read(&mut buffer).await
        && read < left
    {
        left -= read;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use midair_abi::SocketOp;
    use tokio::io::DuplexStream;

    use super::*;
    use crate::resources::sockets::{Bounds, Entry, Sockets};

    fn limits() -> SocketLimits {
        SocketLimits { message: 100, ..SocketLimits::default() }
    }

    fn open() -> Entry {
        let mut entry = Sockets::new().open("shop", "/chat", Bounds { messages: 10, bytes: 1_000 });
        entry.accepted();
        entry
    }

    async fn client(io: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(io, Role::Client, None).await
    }

    /// Time is the test's: it goes on when nothing else does.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_pings_stays_and_one_that_is_silent_is_closed() {
        let entry = open();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let connection = Arc::clone(entry.connection());
        let start = Instant::now();
        let talking = tokio::spawn(async move { carry(ours, &connection, &limits()).await });
        let mut client = client(theirs).await;
        for _ in 0..10 {
            // Reading answers it.
            assert!(matches!(client.next().await, Some(Ok(Message::Ping(_)))));
            client.flush().await.expect("an answer");
        }
        assert_eq!((start.elapsed().as_secs(), entry.connection().ended()), (300, None));
        talking.await.expect("it ends");
        let ended = entry.connection().ended().map(|end| end.cause);
        assert_eq!((ended, start.elapsed()), (Some(Cause::Silent), Duration::from_secs(360) + FAREWELL));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_an_earlier_message_is_handled_is_no_silence() {
        let entry = open();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let connection = Arc::clone(entry.connection());
        let talking = tokio::spawn(async move { carry(ours, &connection, &limits()).await });
        let mut client = client(theirs).await;
        for number in 0..3 {
            client.send(Message::text(number.to_string())).await.expect("it is sent");
        }
        tokio::time::sleep(Duration::from_secs(1_000)).await;
        assert_eq!(entry.connection().ended(), None);
        for number in 0..3 {
            let payload = entry.connection().next().await.expect("a message");
            assert_eq!(payload, Payload { is_text: true, bytes: Bytes::from(number.to_string()) });
        }
        client.close(None).await.expect("it is closed");
        while let Some(Ok(_)) = client.next().await {}
        drop(client);
        talking.await.expect("it ends");
        assert_eq!(entry.connection().ended().map(|end| end.cause), Some(Cause::Client));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_queued_goes_out_before_the_end_and_a_client_that_says_nothing_to_it_isnt_waited_for() {
        let entry = open();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let connection = Arc::clone(entry.connection());
        let payload = |text: &'static str| Bytes::from_static(text.as_bytes());
        let op = |kind, flags, code| {
            let (room, bytes) = (midair_abi::Span::EMPTY, midair_abi::Span::EMPTY);
            SocketOp { kind, flags, id: connection.id, code, room, bytes }
        };
        let sockets = entry.sockets();
        for text in ["one", "two"] {
            assert!(sockets.ask("shop", &op(SocketOp::SEND, SocketOp::TEXT, 0), "", payload(text)).is_ok());
        }
        assert!(sockets.ask("shop", &op(SocketOp::CLOSE, 0, 4000), "", payload("bye")).is_ok());
        let connection = Arc::clone(&connection);
        let talking = tokio::spawn(async move { carry(ours, &connection, &limits()).await });
        let start = Instant::now();
        talking.await.expect("it ends");
        assert_eq!(start.elapsed(), FAREWELL);
        let mut client = client(theirs).await;
        for text in ["one", "two"] {
            assert_eq!(client.next().await.and_then(Result::ok), Some(Message::text(text)));
        }
        let frame = CloseFrame { code: 4000.into(), reason: "bye".into() };
        assert_eq!(client.next().await.and_then(Result::ok), Some(Message::Close(Some(frame))));
    }
}
