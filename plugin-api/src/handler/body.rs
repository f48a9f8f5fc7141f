//! What is a body in pieces to a handler?

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::StatusCode;
use midair_abi::Outcome;
use midair_abi::stream::{Pieces, Source, pieces};

use crate::error::{Error, Result};
use crate::glue::runtime::Inside;

/// A body that comes in pieces: of a request, or of the answer to [`Ctx::call`](crate::Ctx::call).
///
/// Pieces are as large as whoever sends them makes them. Nothing is made or read before it is asked for; what is dropped is given up.
/// After an error nothing follows.
#[must_use = "a body that is dropped is given up"]
pub struct BodyStream(Kind);

enum Kind {
    Over,
    Whole(Bytes),
    /// Made on the other side of the border.
    Theirs(Pieces),
    /// Made here. The lock is never waited for: it lets answers be shared between threads, as those with a whole body can be.
    Ours(Mutex<Ours>),
}

type Ours = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

impl BodyStream {
    pub(crate) fn empty() -> Self {
        Self(Kind::Over)
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    pub(crate) fn theirs(pieces: Pieces) -> Self {
        Self(Kind::Theirs(pieces))
    }

    pub(crate) fn ours<S, B, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes>,
        E: Into<Error>,
    {
        Self(Kind::Ours(Mutex::new(Box::pin(Converted(Box::pin(stream))))))
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    ///
    /// Of a request: 413 if the body is larger than its limit, 408 if the client takes too long, 400 if it hangs up. Of an answer: what its
    /// maker failed with.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }

    /// All that comes, to the end. An endless body never is.
    pub(crate) async fn collect(mut self) -> Result<Bytes> {
        // Most that end soon come in one piece, which needn't be copied.
        let first = self.chunk().await?.unwrap_or_default();
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut whole = BytesMut::from(&first[..]);
        whole.extend_from_slice(&second);
        while let Some(more) = self.chunk().await? {
            whole.extend_from_slice(&more);
        }
        Ok(whole.freeze())
    }

    /// What makes the body for the other side.
    pub(crate) fn into_source(self) -> Source {
        let mut body = Inside::new(self);
        Box::new(move |context| {
            let next = body.run(|body| Pin::new(body).poll_next(context)).unwrap_or(Poll::Ready(None));
            Poll::Ready(match ready!(next) {
                Some(Ok(piece)) => Outcome::chunk(piece),
                Some(Err(error)) => Outcome::told(Outcome::ERROR, error.status().as_u16(), error.to_string(), &[]),
                None => Outcome::done(),
            })
        })
    }

    /// The body as the other side takes it.
    pub(crate) fn into_pieces(self) -> Pieces {
        match self.0 {
            Kind::Theirs(pieces) => pieces,
            other => pieces(Self(other).into_source(), None),
        }
    }
}

impl Stream for BodyStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let next = match &mut self.0 {
            Kind::Over => None,
            Kind::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()).map(Ok),
            Kind::Theirs(pieces) => read(ready!(pieces.poll_next(context))),
            Kind::Ours(stream) => {
                ready!(stream.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll_next(context))
            }
        };
        if !matches!(next, Some(Ok(_))) {
            self.0 = Kind::Over;
        }
        Poll::Ready(next)
    }
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Over => "a body at its end",
            Kind::Whole(_) => "a whole body",
            Kind::Theirs(_) | Kind::Ours(_) => "a body in pieces",
        })
    }
}

/// A piece that lies in the other side's memory.
struct Piece(Outcome);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.0.body()
    }
}

fn read(outcome: Outcome) -> Option<Result<Bytes>> {
    match outcome.kind() {
        Outcome::CHUNK => Some(Ok(Bytes::from_owner(Piece(outcome)))),
        Outcome::DONE => None,
        Outcome::PANIC => Some(Err(Error::internal(format!("the body's maker panicked: {}", outcome.text())))),
        // What the client did wrong it may be told.
        _ => Some(Err(match StatusCode::from_u16(outcome.status()) {
            Ok(status) if status.is_client_error() => Error::new(status, outcome.text()),
            _ => Error::internal(outcome.text()),
        })),
    }
}

/// A stream whose pieces and errors are turned into those of a body.
struct Converted<S>(Pin<Box<S>>);

impl<S, B, E> Stream for Converted<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
    E: Into<Error>,
{
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let next = ready!(self.0.as_mut().poll_next(context));
        Poll::Ready(next.map(|next| next.map(Into::into).map_err(Into::into)))
    }
}
