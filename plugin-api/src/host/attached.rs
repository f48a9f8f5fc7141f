//! How does a plugin call its host?
//!
//! The only caller of the host's function table. What comes back is owned until it is dropped, and freed by the host.

use std::ffi::c_void;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use midair_abi::store::{Answer, Op, Row};
use midair_abi::task;
use midair_abi::{self as abi, Many, Outcome, Span};

use crate::error::{Error, Result};
use crate::glue::runtime::Inside;
use crate::handler::request::Request;
use crate::handler::response::Response;
use crate::handler::socket::Ask;
use crate::host::config::Parsed;
use crate::host::ctx::Level;
use crate::host::link::{Asked, HostLink, Link};
use crate::host::state::{self, History};

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

    /// Another context of the same host.
    ///
    /// # Safety
    ///
    /// `data` was given by the host and nobody else releases it.
    unsafe fn with(&self, data: *const c_void) -> Link {
        Link::Attached(Self(abi::Context { data, host: self.0.host }))
    }
}

impl HostLink for Attached {
    fn again(&self) -> Link {
        // SAFETY: the context is held until `self` is dropped.
        let data = unsafe { self.0.host.context_clone()(self.0.data) };
        // SAFETY: that is one more holder.
        unsafe { self.with(data) }
    }

    fn detached(&self) -> Link {
        // SAFETY: the context is held until `self` is dropped.
        let data = unsafe { self.0.host.context_detach()(self.0.data) };
        // SAFETY: the host made it for whoever asks.
        unsafe { self.with(data) }
    }

    fn plugin(&self) -> &str {
        // SAFETY: the name lives as long as the context, which `self` holds.
        unsafe { self.identity().plugin.text() }
    }

    fn generation(&self) -> u64 {
        self.identity().generation
    }

    fn is_probe(&self) -> bool {
        self.identity().flags & abi::Identity::PROBE != 0
    }

    fn config(&self) -> Option<&Parsed> {
        // An older host has no config, and says so by not having this.
        let config = self.0.host.config()?;
        // SAFETY: the context is held until `self` is dropped.
        let address = unsafe { config(self.0.data) };
        // SAFETY: the host gives null or the address of what `shim::configure` of this very library made, which lives and stays as it is
        // as long as the context, which `self` holds.
        unsafe { address.0.cast::<Parsed>().as_ref() }
    }

    /// In development somebody may go back from committed code too.
    fn may_go_back(&self) -> bool {
        self.identity().flags & (abi::Identity::CANDIDATE | abi::Identity::TRIAL | abi::Identity::DEV) != 0
    }

    fn history(&self, table: &str) -> Option<Arc<History>> {
        state::remembered(table)
    }

    fn log(&self, level: Level, message: &str) {
        // SAFETY: the context is held until `self` is dropped; the message outlives the call.
        unsafe { self.0.host.log()(self.0.data, level as u32, Span::of(message.as_bytes())) }
    }

    fn sleep(&self, duration: Duration) -> Asked<Result<()>> {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let slept = |outcome: Outcome| {
            if outcome.kind() == Outcome::DONE { Ok(()) } else { Err(Error::internal(outcome.text())) }
        };
        // SAFETY: the context is held until `self` is dropped.
        Asked::of(unsafe { self.0.host.sleep()(self.0.data, nanoseconds) }, slept)
    }

    fn call(&self, request: Request) -> Asked<Result<Response>> {
        // SAFETY: the context is held until `self` is dropped; the request is given away.
        Asked::of(unsafe { self.0.host.call()(self.0.data, request.into_wire()) }, Response::from_outcome)
    }

    fn spawn(&self, name: &str, flags: u32, future: Pin<Box<dyn Future<Output = Outcome> + Send>>) -> u64 {
        let future = task::give_unpolled(Inside::new(future), None);
        // SAFETY: the context is held until `self` is dropped; the name outlives the call, and the future is given away.
        unsafe { self.0.host.spawn()(self.0.data, Span::of(name.as_bytes()), flags, future) }
    }

    fn cancel(&self, task: u64) {
        // SAFETY: the context is held until `self` is dropped.
        unsafe { self.0.host.cancel()(self.0.data, task) }
    }

    fn retiring(&self) -> Asked<()> {
        // SAFETY: the context is held until `self` is dropped.
        Asked::of(unsafe { self.0.host.retiring()(self.0.data) }, drop)
    }

    fn emit(&self, topic: &str, message: &[u8], waits: bool) -> Asked<Result<()>> {
        let (topic, message) = (Span::of(topic.as_bytes()), Span::of(message));
        let flags = if waits { 0 } else { abi::Host::AT_ONCE };
        let outcome = {
            // SAFETY: the context is held until `self` is dropped; topic and message outlive the call, after which the host holds copies.
            unsafe { self.0.host.emit()(self.0.data, topic, message, flags) }
        };
        Asked::of(outcome, |outcome| if outcome.kind() == Outcome::DONE { Ok(()) } else { Err(refused(&outcome)) })
    }

    fn service(&self, name: &str, request: &[u8]) -> Asked<Result<Vec<u8>>> {
        let (name, request) = (Span::of(name.as_bytes()), Span::of(request));
        let outcome = {
            // SAFETY: the context is held until `self` is dropped; name and request outlive the call, after which the host holds copies.
            unsafe { self.0.host.service()(self.0.data, name, request) }
        };
        Asked::of(
            outcome,
            |outcome| {
                if outcome.kind() == Outcome::DONE { Ok(outcome.body().to_vec()) } else { Err(refused(&outcome)) }
            },
        )
    }

    fn state(&self, ops: &[Op<'_>]) -> Asked<Answer> {
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
        Asked::of(outcome, Outcome::into_answer)
    }

    fn socket(&self, ask: &Ask<'_>) -> Asked<Result<Vec<Row>>> {
        // SAFETY: the context is held until `self` is dropped; what the operation points to outlives the call, after which the host holds
        // copies.
        Asked::of(unsafe { self.0.host.socket()(self.0.data, ask.op()) }, rows)
    }
}

/// What a socket's operation answered. A 4xx may be told to the client.
fn rows(outcome: Outcome) -> Result<Vec<Row>> {
    if outcome.kind() == Outcome::ERROR {
        let (status, text) = (StatusCode::from_u16(outcome.status())?, outcome.text());
        return Err(if status.is_server_error() { Error::internal(text) } else { Error::new(status, text) });
    }
    Ok(outcome.into_answer()?)
}

/// The host's words. A 503 is for whoever may try again; all else is the operator's.
fn refused(outcome: &Outcome) -> Error {
    match outcome.status() {
        503 => Error::new(StatusCode::SERVICE_UNAVAILABLE, outcome.text()),
        _ => Error::internal(outcome.text()),
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: the hold is `self`'s and ends here.
        unsafe { self.0.host.context_release()(self.0.data) }
    }
}
