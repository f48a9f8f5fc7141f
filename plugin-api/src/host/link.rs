//! What does a plugin ask of its host?
//!
//! One trait, whoever is asked: the host that loaded this library is [`Attached`], unit tests have a small one of their own. A [`Link`] is a hold
//! on either. The host's is kept in place, so that a call brings no allocation for it; what answers at once brings none either.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use midair_abi::Outcome;
use midair_abi::store::{Answer, Op, Row};
use midair_abi::task::Taken;

use crate::error::Result;
use crate::handler::request::Request;
use crate::handler::response::Response;
use crate::handler::socket::Ask;
use crate::host::attached::Attached;
use crate::host::config::Parsed;
use crate::host::ctx::Level;
use crate::host::state::History;

/// A host, as seen by one call. What [`Ctx`](crate::Ctx) promises of each question holds of these.
pub(crate) trait HostLink: Send + Sync {
    /// One more hold on it.
    fn again(&self) -> Link;
    /// A hold of the same generation's that belongs to no call.
    fn detached(&self) -> Link;
    /// The plugin's name.
    fn plugin(&self) -> &str;
    /// The generation's number.
    fn generation(&self) -> u64;
    /// Whether it is a probe.
    fn is_probe(&self) -> bool;
    /// Whether older code may come back.
    fn may_go_back(&self) -> bool;
    /// The plugin's config, if it declares one.
    fn config(&self) -> Option<&Parsed>;
    /// The forms of a table of the plugin's, if it has several.
    fn history(&self, table: &str) -> Option<Arc<History>>;
    /// Says a line.
    fn log(&self, level: Level, message: &str);
    /// Does these operations on the state, all or none.
    fn state(&self, ops: &[Op<'_>]) -> Asked<Answer>;
    /// Waits.
    fn sleep(&self, duration: Duration) -> Asked<Result<()>>;
    /// Asks another route.
    fn call(&self, request: Request) -> Asked<Result<Response>>;
    /// Emits a message; without `waits` it is an error if there is no room for it.
    fn emit(&self, topic: &str, message: &[u8], waits: bool) -> Asked<Result<()>>;
    /// Calls what the host offers.
    fn service(&self, name: &str, request: &[u8]) -> Asked<Result<Vec<u8>>>;
    /// An operation on a WebSocket or a room.
    fn socket(&self, ask: &Ask<'_>) -> Asked<Result<Vec<Row>>>;
    /// Polls `work` beside all calls; its number, or 0.
    fn spawn(&self, name: &str, flags: u32, work: Pin<Box<dyn Future<Output = Outcome> + Send>>) -> u64;
    /// Has such work dropped.
    fn cancel(&self, task: u64);
    /// Done when newer code was published.
    fn retiring(&self) -> Asked<()>;
}

/// A hold on a host.
pub(crate) enum Link {
    /// The host that loaded this library.
    Attached(Attached),
    /// Any other.
    Other(Box<dyn HostLink>),
}

impl Deref for Link {
    type Target = dyn HostLink;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Attached(host) => host,
            Self::Other(host) => &**host,
        }
    }
}

impl Clone for Link {
    fn clone(&self) -> Self {
        self.again()
    }
}

/// What was asked of a host. The asking is done; this is the answer.
#[must_use = "somebody wants to know"]
pub(crate) enum Asked<T> {
    /// It is there, until it is taken.
    Now(Option<T>),
    /// What comes over the border, and how to read it.
    Theirs(Taken, fn(Outcome) -> T),
    /// What is made on this side of it.
    Ours(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> Asked<T> {
    pub(crate) fn now(answer: T) -> Self {
        Self::Now(Some(answer))
    }

    pub(crate) fn of(outcome: Outcome, read: fn(Outcome) -> T) -> Self {
        match Taken::take(outcome) {
            Ok(pending) => Self::Theirs(pending, read),
            Err(ready) => Self::now(read(ready)),
        }
    }

    pub(crate) fn ours(answer: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Ours(Box::pin(answer))
    }
}

impl<T: Unpin> Future for Asked<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.get_mut() {
            Self::Now(answer) => Poll::Ready(answer.take().expect("an answer is taken once")),
            Self::Theirs(pending, read) => Pin::new(pending).poll(context).map(*read),
            Self::Ours(answer) => answer.as_mut().poll(context),
        }
    }
}
