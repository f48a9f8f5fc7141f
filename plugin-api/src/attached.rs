//! How does a plugin call its host?
//!
//! The only caller of the host's function table. What comes back is owned until it is dropped, and freed by the host.

use std::pin::Pin;
use std::time::Duration;

use http::StatusCode;
use midair_abi::store::{Answer, Op, Row};
use midair_abi::task::{self, Taken};
use midair_abi::{self as abi, Many, Outcome, Span};

use crate::config::Parsed;
use crate::ctx::Level;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::runtime::Inside;
use crate::socket::Ask;

/// A counted hold on a host's context.
pub(crate) struct Attached(abi::Context);

// SAFETY: the host's contexts are `Send + Sync` and its functions may be called from any thread.
unsafe impl Send for Attached {}
// SAFETY: as above.
unsafe impl Sync for Attached {}

impl Attached {
    /// # Safety
    ///
    /// `context` was given by the host and nobody else releases it.
    pub(crate) unsafe fn new(context: abi::Context) -> Self {
        Self(context)
    }

    fn identity(&self) -> abi::Identity {
        // SAFETY: the context is held until `self` is dropped.
        unsafe { self.0.host.identity()(self.0.data) }
    }

    pub(crate) fn plugin(&self) -> &str {
        // SAFETY: the name lives as long as the context, which `self` holds.
        unsafe { self.identity().plugin.text() }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.identity().generation
    }

    pub(crate) fn is_probe(&self) -> bool {
        self.identity().flags & abi::Identity::PROBE != 0
    }

    /// The plugin's config, if it declares one.
    pub(crate) fn config(&self) -> Option<&Parsed> {
        // An older host has no config, and says so by not having this.
        let config = self.0.host.config()?;
        // SAFETY: the context is held until `self` is dropped.
        let address = unsafe { config(self.0.data) };
        // SAFETY: the host gives null or the address of what `shim::configure` of this very library made, which lives and stays as it is
        // as long as the context, which `self` holds.
        unsafe { address.0.cast::<Parsed>().as_ref() }
    }

    /// In development somebody may go back from committed code too.
    pub(crate) fn may_go_back(&self) -> bool {
        self.identity().flags & (abi::Identity::CANDIDATE | abi::Identity::TRIAL | abi::Identity::DEV) != 0
    }

    pub(crate) fn log(&self, level: Level, message: &str) {
        // SAFETY: the context is held until `self` is dropped; the message outlives the call.
        unsafe { self.0.host.log()(self.0.data, level as u32, Span::of(message.as_bytes())) }
    }

    pub(crate) async fn sleep(&self, duration: Duration) -> Result<()> {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the context is held until `self` is dropped.
        let outcome = finish(unsafe { self.0.host.sleep()(self.0.data, nanoseconds) }).await;
        if outcome.kind() == Outcome::DONE { Ok(()) } else { Err(Error::internal(outcome.text())) }
    }

    pub(crate) async fn call(&self, request: Request) -> Outcome {
        // SAFETY: the context is held until `self` is dropped; the request is given away.
        finish(unsafe { self.0.host.call()(self.0.data, request.into_wire()) }).await
    }

    /// A context of the same generation that belongs to no call.
    pub(crate) fn free(&self) -> Self {
        // SAFETY: the context is held until `self` is dropped.
        let data = unsafe { self.0.host.context_free()(self.0.data) };
        Self(abi::Context { data, host: self.0.host })
    }

    /// Gives a future to the host; its number, 0 if the host dropped it.
    pub(crate) fn spawn(&self, name: &str, flags: u32, future: Pin<Box<dyn Future<Output = Outcome> + Send>>) -> u64 {
        let future = task::give_unpolled(Inside::new(future), None);
        // SAFETY: the context is held until `self` is dropped; the name outlives the call, and the future is given away.
        unsafe { self.0.host.spawn()(self.0.data, Span::of(name.as_bytes()), flags, future) }
    }

    pub(crate) fn cancel(&self, task: u64) {
        // SAFETY: the context is held until `self` is dropped.
        unsafe { self.0.host.cancel()(self.0.data, task) }
    }

    pub(crate) async fn retiring(&self) {
        // SAFETY: the context is held until `self` is dropped.
        finish(unsafe { self.0.host.retiring()(self.0.data) }).await;
    }

    pub(crate) async fn emit(&self, topic: &str, message: &[u8], waits: bool) -> Result<()> {
        let (topic, message) = (Span::of(topic.as_bytes()), Span::of(message));
        let flags = if waits { 0 } else { abi::Host::AT_ONCE };
        let outcome = {
            // SAFETY: the context is held until `self` is dropped; topic and message outlive the call, after which the host holds copies.
            unsafe { self.0.host.emit()(self.0.data, topic, message, flags) }
        };
        let outcome = finish(outcome).await;
        if outcome.kind() == Outcome::DONE { Ok(()) } else { Err(refused(&outcome)) }
    }

    pub(crate) async fn service(&self, name: &str, request: &[u8]) -> Result<Vec<u8>> {
        let (name, request) = (Span::of(name.as_bytes()), Span::of(request));
        let outcome = {
            // SAFETY: the context is held until `self` is dropped; name and request outlive the call, after which the host holds copies.
            unsafe { self.0.host.service()(self.0.data, name, request) }
        };
        let outcome = finish(outcome).await;
        if outcome.kind() == Outcome::DONE { Ok(outcome.body().to_vec()) } else { Err(refused(&outcome)) }
    }

    pub(crate) async fn state(&self, ops: &[Op<'_>]) -> Answer {
        let outcome = {
            // One operation is the rule; it needs no allocation.
            let (one, many);
            let ops = if let [op] = ops {
                one = [abi::Op::of(op)];
                Many::of(&one)
            } else {
                many = ops.iter().map(abi::Op::of).collect::<Vec<_>>();
                Many::of(&many)
            };
            // SAFETY: the context is held until `self` is dropped; the operations outlive the call, after which the host holds copies.
            unsafe { self.0.host.state()(self.0.data, ops) }
        };
        finish(outcome).await.into_answer()
    }

    pub(crate) async fn socket(&self, ask: &Ask<'_>) -> Result<Vec<Row>> {
        // SAFETY: the context is held until `self` is dropped; what the operation points to outlives the call, after which the host holds
        // copies.
        let outcome = finish(unsafe { self.0.host.socket()(self.0.data, ask.op()) }).await;
        if outcome.kind() == Outcome::ERROR {
            let (status, text) = (StatusCode::from_u16(outcome.status())?, outcome.text());
            return Err(if status.is_server_error() { Error::internal(text) } else { Error::new(status, text) });
        }
        Ok(outcome.into_answer()?)
    }
}

/// The host's words. A 503 is for whoever may try again; all else is the operator's.
fn refused(outcome: &Outcome) -> Error {
    match outcome.status() {
        503 => Error::new(StatusCode::SERVICE_UNAVAILABLE, outcome.text()),
        _ => Error::internal(outcome.text()),
    }
}

async fn finish(outcome: Outcome) -> Outcome {
    match Taken::take(outcome) {
        Ok(pending) => pending.await,
        Err(ready) => ready,
    }
}

impl Clone for Attached {
    fn clone(&self) -> Self {
        // SAFETY: the context is held until `self` is dropped.
        let data = unsafe { self.0.host.context_clone()(self.0.data) };
        Self(abi::Context { data, host: self.0.host })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: the hold is `self`'s and ends here.
        unsafe { self.0.host.context_release()(self.0.data) }
    }
}
