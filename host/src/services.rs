//! What can a plugin ask of the host?
//!
//! The functions behind [`abi::Host`]. Each gets a context, which is a counted [`Call`], and runs inside the panic wall on the host's
//! side. Nothing here is ever unmapped.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

use abi_stable::prefix_type::WithMetadata;
use bytes::Bytes;
use midair_plugin::abi::{self, HostRef, Many, Outcome, SocketOp, Span};
use midair_plugin::store::{Op, Refusal};
use midair_plugin::task::{Keep, Taken};
use midair_plugin::{task, wall};

use crate::background;
use crate::call::Call;
use crate::event::Event;

static HOST: &WithMetadata<abi::Host> = &WithMetadata::new(abi::Host {
    context_clone,
    context_release,
    identity,
    log,
    state,
    sleep,
    call,
    context_free,
    spawn,
    cancel,
    retiring,
    socket,
});

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
        Ok(Ok(Ok(rows))) => Outcome::of_rows(rows),
        Ok(Ok(Err(refusal))) => Outcome::refused(&refusal),
        Ok(Err(kind)) => Outcome::told(Outcome::ERROR, 500, format!("the host doesn't know state operation {kind}"), &[]),
        Err(panic) => Outcome::panicked(panic),
    }
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
    wall::guard(|| call.nest(&request)).unwrap_or_else(Outcome::panicked)
}

unsafe extern "C" fn context_free(context: *const c_void) -> *const c_void {
    // SAFETY: the plugin passes a context that it holds.
    let generation = unsafe { read(context) }.generation();
    Arc::into_raw(Call::free(Arc::clone(generation))).cast()
}

/// How many characters of a task's name are kept.
const LONGEST_NAME: usize = 200;

unsafe extern "C" fn spawn(context: *const c_void, name: Span, flags: u32, future: Outcome) -> u64 {
    // SAFETY: the plugin passes a context that it holds, and this is one hold more.
    unsafe { Arc::increment_strong_count(context.cast::<Call>()) };
    // SAFETY: the hold of the line before, which `call` ends.
    let call = unsafe { Arc::from_raw(context.cast::<Call>()) };
    // SAFETY: the plugin keeps the name during the call.
    let name: String = unsafe { name.text() }.chars().take(LONGEST_NAME).collect();
    let Ok(future) = Taken::take(future) else { return 0 };
    if call.generation().is_revoked() {
        return 0;
    }
    let until_retire = flags & abi::Host::UNTIL_RETIRE != 0;
    wall::guard(|| background::spawn(name, until_retire, call, future)).unwrap_or(0)
}

unsafe extern "C" fn cancel(context: *const c_void, task: u64) {
    // SAFETY: the plugin passes a context that it holds.
    let generation = unsafe { read(context) }.generation();
    let _ = wall::guard(|| generation.services().tasks.cancel(task));
}

unsafe extern "C" fn retiring(context: *const c_void) -> Outcome {
    // SAFETY: the plugin passes a context that it holds.
    let generation = unsafe { read(context) }.generation();
    let keep: Keep = Arc::clone(generation) as Keep;
    task::give_unpolled(Box::pin(background::retiring(generation)), Some(keep))
}

unsafe extern "C" fn socket(context: *const c_void, op: SocketOp) -> Outcome {
    // SAFETY: the plugin passes a context that it holds.
    let generation = unsafe { read(context) }.generation();
    if generation.is_revoked() {
        return revoked();
    }
    if generation.is_candidate() && op.kind != SocketOp::COUNT {
        return Outcome::told(Outcome::ERROR, 500, "init has no WebSockets: nothing serves yet".to_owned(), &[]);
    }
    // SAFETY: the plugin keeps the room's name during the call.
    let room = unsafe { op.room.text() };
    // SAFETY: the plugin keeps the bytes during the call.
    let bytes = unsafe { op.bytes.bytes() };
    let keep: Keep = Arc::clone(generation) as Keep;
    let asked = wall::guard(|| generation.services().sockets.ask(generation.plugin(), &op, room, Bytes::copy_from_slice(bytes)));
    match asked {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(future)) => task::give_unpolled(future, Some(keep)),
        Err(panic) => Outcome::panicked(panic),
    }
}

fn revoked() -> Outcome {
    Outcome::refused(&Refusal::Revoked)
}
