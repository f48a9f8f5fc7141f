//! How does a plugin call its host?
//!
//! The only caller of the host's function table. What comes back is owned until it is dropped, and freed by the host.

use std::time::Duration;

use crate::abi::{self, Many, Outcome, Span};
use crate::ctx::Level;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::store::{Answer, Op};
use crate::task::Taken;

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
