//! What can a plugin ask of the host?
//!
//! The functions behind [`abi::Host`]. Each gets a context, which is a counted [`Call`], and runs inside the panic wall on the host's
//! side. Nothing here is ever unmapped.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

use abi_stable::prefix_type::WithMetadata;
use midair_plugin::abi::{self, HostRef, Many, Outcome, Span};
use midair_plugin::store::{self, Op, Refusal};
use midair_plugin::task::Keep;
use midair_plugin::{task, wall};

use crate::call::{Answer, Call};
use crate::event::Event;
use crate::state::Applied;

static HOST: &WithMetadata<abi::Host> =
    &WithMetadata::new(abi::Host { context_clone, context_release, identity, log, state, sleep, call });

/// The functions, as a plugin gets them.
#[must_use]
pub(crate) fn functions() -> HostRef {
    HostRef(HOST.static_as_prefix())
}

/// # Safety
///
/// `context` came from [`Call::context`] or `context_clone` and wasn't released yet.
unsafe fn read<'a>(context: *const c_void) -> &'a Call {
    // SAFETY: passed on to the caller; the count that the holder has keeps it alive.
    unsafe { &*context.cast::<Call>() }
}

unsafe extern "C" fn context_clone(context: *const c_void) -> *const c_void {
    // SAFETY: the plugin passes a context that it holds.
    unsafe { Arc::increment_strong_count(context.cast::<Call>()) };
    context
}

unsafe extern "C" fn context_release(context: *const c_void) {
    // SAFETY: the plugin releases each hold once.
    wall::guard_drop(unsafe { Arc::from_raw(context.cast::<Call>()) });
}

unsafe extern "C" fn identity(context: *const c_void) -> abi::Identity {
    // SAFETY: the plugin passes a context that it holds.
    let generation = unsafe { read(context) }.generation();
    let services = generation.services();
    let flags = [
        (services.dev, abi::Identity::DEV),
        (generation.is_candidate(), abi::Identity::CANDIDATE),
        (services.probe, abi::Identity::PROBE),
        (!generation.is_committed(), abi::Identity::TRIAL),
    ];
    let flags = flags.into_iter().filter(|(is, _)| *is).fold(0, |flags, (_, flag)| flags | flag);
    abi::Identity { plugin: Span::of(generation.plugin().as_bytes()), generation: generation.number(), flags }
}

/// How many characters of a log line are kept.
const LONGEST_LINE: usize = 16 << 10;

unsafe extern "C" fn log(context: *const c_void, level: u32, message: Span) {
    // SAFETY: the plugin passes a context that it holds.
    let generation = unsafe { read(context) }.generation();
    // SAFETY: the plugin keeps the message during the call.
    let message: String = unsafe { message.text() }.chars().take(LONGEST_LINE).collect();
    let level = ["error", "warn", "info", "debug"].get(level.saturating_sub(1) as usize).copied().unwrap_or("trace");
    let (plugin, number) = (generation.plugin().to_owned(), generation.number());
    let _ = wall::guard(|| {
        generation.services().bus.say(Event::Log { plugin, generation: number, level: level.to_owned(), message });
    });
}

unsafe extern "C" fn state(context: *const c_void, ops: Many<abi::Op>) -> Outcome {
    // SAFETY: the plugin passes a context that it holds.
    let generation = unsafe { read(context) }.generation();
    // SAFETY: the plugin keeps the operations during the call.
    let ops = unsafe { ops.items() };
    // SAFETY: as above, and so it does what they point to.
    let one = |op: &abi::Op| unsafe { op.read() };
    let answer = wall::guard(|| {
        // One operation is the rule; it needs no list.
        if let [op] = ops {
            return one(op).map(|op| generation.apply(&[op]));
        }
        let ops = ops.iter().map(one).collect::<Result<Vec<Op<'_>>, u32>>()?;
        Ok(generation.apply(&ops))
    });
    match answer {
        Ok(Ok(Applied::Now(answer))) => answered(answer),
        #[cfg(feature = "redb")]
        Ok(Ok(Applied::Later(pending))) => {
            let keep: Keep = Arc::clone(generation) as Keep;
            task::give_unpolled(Box::pin(async { answered(pending.await) }), Some(keep))
        }
        Ok(Err(kind)) => Outcome::told(Outcome::ERROR, 500, format!("the host doesn't know state operation {kind}"), &[]),
        Err(panic) => Outcome::panicked(panic),
    }
}

fn answered(answer: store::Answer) -> Outcome {
    answer.map_or_else(|refusal| Outcome::refused(&refusal), Outcome::of_rows)
}

unsafe extern "C" fn sleep(context: *const c_void, nanoseconds: u64) -> Outcome {
    // SAFETY: the plugin passes a context that it holds.
    let generation = unsafe { read(context) }.generation();
    if generation.is_revoked() {
        return revoked();
    }
    let keep: Keep = Arc::clone(generation) as Keep;
    let timer = wall::guard(|| futures_timer::Delay::new(Duration::from_nanos(nanoseconds)));
    match timer {
        Ok(timer) => task::give_unpolled(Box::pin(done_after(timer)), Some(keep)),
        Err(panic) => Outcome::panicked(panic),
    }
}

async fn done_after(timer: futures_timer::Delay) -> Outcome {
    timer.await;
    Outcome::done()
}

unsafe extern "C" fn call(context: *const c_void, request: abi::Request) -> Outcome {
    // SAFETY: the plugin passes a context that it holds.
    let call = unsafe { read(context) };
    if call.generation().is_revoked() {
        return revoked();
    }
    let keep: Keep = Arc::clone(call.generation()) as Keep;
    let invocation = match wall::guard(|| call.nest(&request)) {
        Ok(Ok(invocation)) => invocation,
        Ok(Err(outcome)) => return outcome,
        Err(panic) => return Outcome::panicked(panic),
    };
    let answer = async move {
        match invocation.await {
            Answer::Response(reply) => {
                let headers = reply.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
                // The body stays where the called plugin put it, held by the reply.
                Outcome::response(reply.status(), headers, reply)
            }
            Answer::Error { status, text } => Outcome::told(Outcome::ERROR, status, text, &[]),
            Answer::Panic(text) => Outcome::told(Outcome::ERROR, 500, format!("the called handler panicked: {text}"), &[]),
        }
    };
    task::give_unpolled(Box::pin(answer), Some(keep))
}

fn revoked() -> Outcome {
    Outcome::refused(&Refusal::Revoked)
}
