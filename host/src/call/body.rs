//! Where does an answer's body come from?
//!
//! From the plugin's memory, from a stream of the plugin's, or from a file that the plugin names. No sockets here and no runtime: a stream is
//! asked for its next piece by whoever carries the answer, when there is room for it.

use std::ffi::OsString;
use std::future::poll_fn;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use midair_abi::Outcome;
use midair_abi::stream::{Pieces, Source};

use crate::call::invocation::{Call, Reply};
use crate::mutation::{self, Bug};

/// The body of an answer; it holds what its memory needs.
pub(crate) enum Body {
    /// All of it.
    Whole(Bytes),
    /// Made piece by piece.
    Stream(Box<Streamed>),
    /// What lies in this file.
    File(PathBuf),
}

impl Body {
    /// The body of a plugin's response, whose head was read.
    #[must_use]
    pub(crate) fn of(reply: Reply) -> Self {
        if reply.is_file() {
            return Self::File(OsString::from_vec(reply.as_ref().to_vec()).into());
        }
        if !reply.is_streamed() {
            return Self::Whole(Bytes::from_owner(reply));
        }
        let (outcome, call) = reply.into_parts();
        let call = if mutation::is(Bug::StreamUnleased) { Call::detached(call.setup()) } else { call };
        match Pieces::take(outcome) {
            Ok(pieces) => Self::Stream(Box::new(Streamed { pieces: Some(pieces), call })),
            Err(_) => Self::Whole(Bytes::new()),
        }
    }

    /// All of it, gathered: a file is read on this thread, and a stream that never ends never is.
    ///
    /// # Errors
    ///
    /// Why there is no whole.
    pub(crate) async fn gather(self) -> Result<Bytes, Broken> {
        match self {
            Self::Whole(bytes) => Ok(bytes),
            Self::File(path) => std::fs::read(&path)
                .map(Bytes::from)
                .map_err(|error| Broken { status: 404, reason: format!("{} can't be read: {error}", path.display()) }),
            Self::Stream(mut stream) => {
                let mut whole = BytesMut::new();
                while let Some(piece) = poll_fn(|context| stream.poll_next(context)).await {
                    whole.extend_from_slice(&piece?);
                }
                Ok(whole.freeze())
            }
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

/// Why a body isn't whole. Its text is the operator's.
#[derive(Debug)]
pub(crate) struct Broken {
    /// What an answer that can still be given says.
    pub status: u16,
    /// Why.
    pub reason: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the body broke off: {}", self.reason)
    }
}

impl std::error::Error for Broken {}

/// A body that a plugin makes. It holds the lease of its call to its end, and so its generation's code.
pub(crate) struct Streamed {
    // Dropped first, by the plugin's code. None once it is over.
    pieces: Option<Pieces>,
    call: Arc<Call>,
}

impl Streamed {
    /// The next piece, which stays in the plugin's memory; `None` at the end, and after an error.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        if mutation::is(Bug::PieceLost) {
            drop(pieces.poll_next(context));
        }
        let outcome = ready!(pieces.poll_next(context));
        if outcome.kind() == Outcome::CHUNK {
            if outcome.body().is_empty() {
                // Nothing to write, so nobody would take turns: others run before it is asked again.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Some(Ok(Bytes::from_owner(Piece { outcome, _call: Arc::clone(&self.call) }))));
        }
        self.pieces = None;
        if outcome.kind() == Outcome::DONE {
            return Poll::Ready(None);
        }
        let status = outcome.status();
        Poll::Ready(Some(Err(Broken { status, reason: self.call.broke_off(outcome) })))
    }

    /// The same body for another plugin.
    #[must_use]
    pub(crate) fn into_source(mut self) -> Source {
        Box::new(move |context| {
            Poll::Ready(match ready!(self.poll_next(context)) {
                Some(Ok(piece)) => Outcome::chunk(piece),
                Some(Err(broken)) => Outcome::told(Outcome::ERROR, 500, broken.to_string(), &[]),
                None => Outcome::done(),
            })
        })
    }
}

#[cfg(midair_seeded)]
impl Drop for Streamed {
    fn drop(&mut self) {
        if mutation::is(Bug::BodyKept) {
            std::mem::forget(self.pieces.take());
        }
    }
}

/// A piece of a body with what keeps it readable.
struct Piece {
    // Dropped first, by the plugin's code.
    outcome: Outcome,
    _call: Arc<Call>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.outcome.body()
    }
}

/// A request's body, gathered from what another plugin makes.
///
/// # Errors
///
/// The outcome that isn't a piece.
pub(crate) async fn gather(pieces: &mut Pieces) -> Result<Bytes, Outcome> {
    let mut whole = BytesMut::new();
    loop {
        let outcome = poll_fn(|context| pieces.poll_next(context)).await;
        match outcome.kind() {
            Outcome::CHUNK => whole.extend_from_slice(outcome.body()),
            Outcome::DONE => return Ok(whole.freeze()),
            _ => return Err(outcome),
        }
    }
}
