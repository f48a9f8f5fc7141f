//! What does hyper write of an answer, and until when does a request count as in flight?

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tower_http::services::fs::ServeFileSystemResponseBody;

use crate::call::body::{Broken, Streamed};

/// A request that counts as in flight until this is dropped.
pub(super) struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    /// One more.
    pub(super) fn of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer on its way out. Its request is in flight until all of it was written or given up.
pub(super) enum Outgoing {
    /// What is left of a whole body.
    Whole(Option<Bytes>),
    /// What a plugin makes, asked for when there is room for it; and why it broke off, which is told once what came before was written.
    Stream(Box<Streamed>, Arc<InFlight>, Option<Broken>),
    /// What lies in a file.
    File(Box<ServeFileSystemResponseBody>, Arc<InFlight>),
}

/// Bytes that are in flight until they were written.
struct Written<F> {
    bytes: Bytes,
    _in_flight: F,
}

impl<F> AsRef<[u8]> for Written<F> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Outgoing {
    /// A whole body.
    pub(super) fn whole(bytes: Bytes, in_flight: InFlight) -> Self {
        Self::Whole(Some(Bytes::from_owner(Written { bytes, _in_flight: in_flight })))
    }

    /// A body that a plugin makes.
    pub(super) fn stream(stream: Box<Streamed>, in_flight: InFlight) -> Self {
        Self::Stream(stream, Arc::new(in_flight), None)
    }

    /// A file's.
    pub(super) fn file(file: ServeFileSystemResponseBody, in_flight: InFlight) -> Self {
        Self::File(Box::new(file), Arc::new(in_flight))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let (piece, in_flight) = match &mut *self {
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream, in_flight, broken) => {
                if let Some(broken) = broken.take() {
                    return Poll::Ready(Some(Err(broken.into())));
                }
                let piece = ready!(stream.poll_next(context));
                let piece = piece.transpose().unwrap_or_else(|error| {
                    *broken = Some(error);
                    None
                });
                if broken.is_some() {
                    // An error would end the connection with what is still to be written. Hyper writes that before it asks again.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                (piece.map(Ok), in_flight)
            }
            Self::File(file, in_flight) => {
                let frame = ready!(Pin::new(&mut **file).poll_frame(context));
                let data = frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()));
                (data.map(|data| data.map_err(Into::into)), in_flight)
            }
        };
        // Each piece may be written long after the body came to its end.
        let held = |bytes| Bytes::from_owner(Written { bytes, _in_flight: Arc::clone(in_flight) });
        Poll::Ready(piece.map(|piece| piece.map(|bytes| Frame::data(held(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(..) => false,
            Self::File(file, _) => file.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(..) => SizeHint::default(),
            Self::File(file, _) => file.size_hint(),
        }
    }
}
