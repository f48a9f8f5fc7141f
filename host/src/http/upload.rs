//! How does a request's body reach its handler: read whole before, or piece by piece when it asks?

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use midair_abi::Outcome;
use midair_abi::stream::{Pieces, pieces};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use crate::call::respond::{Answered, own};

/// How much of a body over its limit, or of one that nobody asked for, is read and thrown away, so that a client that sends before it listens
/// gets its answer.
const DISCARDED: usize = 16 << 20;

/// What a body is held to.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// The most bytes.
    pub limit: usize,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether the client sends nothing before it is asked to.
    pub waits_for_leave: bool,
}

impl Terms {
    fn too_large(&self) -> String {
        format!("the body is larger than {} bytes", self.limit)
    }
}

fn announced(body: &Incoming) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}

/// Reads a body, whole.
///
/// # Errors
///
/// The answer to a client that sends too much, too slowly, or not all.
pub(super) async fn gather(mut body: Incoming, terms: Terms) -> Result<Bytes, Answered> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let limit = terms.limit;
    let too_large = || own(StatusCode::PAYLOAD_TOO_LARGE, &terms.too_large());
    let announced = announced(&body);
    // Not worth reading, or not sent before we ask for it.
    if announced > limit && (terms.waits_for_leave || announced > limit.saturating_add(DISCARDED)) {
        return Err(too_large());
    }
    let whole = async {
        let (mut first, mut rest, mut size) = (Bytes::new(), BytesMut::new(), 0);
        while let Some(frame) = Pin::new(&mut body).frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            size += data.len();
            match (size <= limit, first.is_empty()) {
                // Most bodies come in one piece, which needn't be copied.
                (true, true) => first = data,
                (true, false) => {
                    if rest.is_empty() {
                        rest.extend_from_slice(&first);
                    }
                    rest.extend_from_slice(&data);
                }
                (false, _) => {
                    (first, rest) = (Bytes::new(), BytesMut::new());
                    if size > limit.saturating_add(DISCARDED) {
                        break;
                    }
                }
            }
        }
        Ok((if rest.is_empty() { first } else { rest.freeze() }, size))
    };
    match tokio::time::timeout(terms.timeout, whole).await {
        Ok(Ok((body, size))) if size <= limit => Ok(body),
        Ok(Ok(_)) => Err(too_large()),
        Ok(Err::<_, hyper::Error>(error)) => Err(own(StatusCode::BAD_REQUEST, &cut_off(&error))),
        Err(_) => Err(own(StatusCode::REQUEST_TIMEOUT, TOO_LONG)),
    }
}

const TOO_LONG: &str = "the body took too long";

fn cut_off(error: &hyper::Error) -> String {
    format!("the body can't be read: {error}")
}

/// A body that its handler asks for piece by piece. Must be called within the runtime.
pub(super) fn in_pieces(body: Incoming, terms: Terms) -> Pieces {
    let mut upload = Upload {
        announced: announced(&body),
        body: Some(body),
        terms,
        size: 0,
        waits: None,
        waited: Duration::ZERO,
        paid: 0,
        alarm: Box::pin(tokio::time::sleep(terms.timeout)),
        runtime: Handle::current(),
    };
    pieces(Box::new(move |context| upload.poll_next(context)), None)
}

/// What is left of a body. It is read no further than it is asked for.
struct Upload {
    /// None at the end.
    body: Option<Incoming>,
    announced: usize,
    terms: Terms,
    size: usize,
    /// Since when the handler waits for the client.
    waits: Option<Instant>,
    /// How long it waited before, since it was `paid` last.
    waited: Duration,
    /// The size at which the time began anew: a body may take as long for each so many bytes as a whole one of that size. What the handler
    /// takes for itself doesn't count.
    paid: usize,
    alarm: Pin<Box<Sleep>>,
    /// The body may be dropped on any thread.
    runtime: Handle,
}

/// So many bytes buy a body the time that it may take anew.
const FARE: usize = 2 << 20;

impl Upload {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let failed = |status: StatusCode, text: String| Poll::Ready(Outcome::told(Outcome::ERROR, status.as_u16(), text, &[]));
        if self.announced > self.terms.limit {
            return failed(StatusCode::PAYLOAD_TOO_LARGE, self.terms.too_large());
        }
        // Whether the client waits for leave or not: it has it now.
        self.terms.waits_for_leave = false;
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(Outcome::done()) };
            match Pin::new(body).poll_frame(context) {
                Poll::Ready(None) => {
                    self.body = None;
                    return Poll::Ready(Outcome::done());
                }
                Poll::Ready(Some(Err(error))) => {
                    self.body = None;
                    return failed(StatusCode::BAD_REQUEST, cut_off(&error));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.size = self.size.saturating_add(data.len());
                    if self.size > self.terms.limit {
                        return failed(StatusCode::PAYLOAD_TOO_LARGE, self.terms.too_large());
                    }
                    self.waited += self.waits.take().map_or(Duration::ZERO, |since| since.elapsed());
                    if self.size - self.paid >= FARE {
                        (self.paid, self.waited) = (self.size, Duration::ZERO);
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Outcome::chunk(data));
                    }
                }
                Poll::Pending => {
                    if self.waits.is_none() {
                        let now = Instant::now();
                        self.waits = Some(now);
                        self.alarm.as_mut().reset(now + self.terms.timeout.saturating_sub(self.waited));
                    }
                    if self.alarm.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    // It is not worth waiting for what is left: the connection ends with the answer.
                    self.body = None;
                    return failed(StatusCode::REQUEST_TIMEOUT, TOO_LONG.to_owned());
                }
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        // Not sent before we ask for it, or too much of it: the connection ends with the answer.
        if body.is_end_stream() || self.terms.waits_for_leave || announced(&body) > DISCARDED {
            return;
        }
        let discard = async move {
            let mut size = 0;
            while let Some(Ok(frame)) = Pin::new(&mut body).frame().await {
                size += frame.data_ref().map_or(0, Bytes::len);
                if size > DISCARDED {
                    break;
                }
            }
        };
        let timeout = self.terms.timeout;
        // The clock is the runtime's, which this thread needn't be in.
        self.runtime.spawn(async move { tokio::time::timeout(timeout, discard).await });
    }
}
