//! What can a plugin ask of the host?
//!
//! The functions behind [`abi::Host`]. Each gets a context, which is a counted [`Call`], and runs inside the panic wall on the host's
//! side. Nothing here is ever unmapped.

use std::ffi::c_void;
use std::os::unix::ffi::OsStringExt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use abi_stable::prefix_type::WithMetadata;
use bytes::Bytes;
use midair_abi::store::{self, Op, Refusal};
use midair_abi::stream::{self, Pieces};
use midair_abi::task::{Keep, Taken};
use midair_abi::{self as abi, Address, HostRef, Many, Outcome, SocketOp, Span};
use midair_abi::{task, wall};

use crate::call::body::{self, Body};
use crate::call::context::{Ask, Reaches};
use crate::call::invocation::{Answer, Call};
use crate::call::request::RequestParts;

use crate::live::slot::Slot;
use crate::plugin::exports::Plugin;
use crate::resources::host_services::{self, Asked, Caller};
use crate::resources::state::Applied;
use crate::work::background;
use crate::work::dispatch;

static HOST: &WithMetadata<abi::Host> = &WithMetadata::new(abi::Host {
    context_clone,
    context_release,
    identity,
    log,
    state,
    sleep,
    call,
    context_detach,
    spawn,
    cancel,
    retiring,
    config,
    emit,
    service,
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
    let services = generation.host();
    let flags = [
        (services.dev, abi::Identity::DEV),
        (generation.is_candidate(), abi::Identity::CANDIDATE),
        (services.probe, abi::Identity::PROBE),
        (!generation.is_committed(), abi::Identity::TRIAL),
    ];
    let flags = flags.into_iter().filter(|(is, _)| *is).fold(0, |flags, (_, flag)| flags | flag);
    abi::Identity { plugin: Span::of(generation.plugin().as_bytes()), generation: generation.number(), flags }
}

unsafe extern "C" fn log(context: *const c_void, level: u32, message: Span) {
    // SAFETY: the plugin passes a context that it holds.
    let generation = unsafe { read(context) }.generation();
    // SAFETY: the plugin keeps the message during the call.
    let message = unsafe { message.text() };
    if let Some(logs) = generation.code().and_then(Plugin::logs) {
        logs.say(level, message);
    }
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
            return one(op).map(|op| generation.gate().apply(&generation.host().store, &[op]));
        }
        let ops = ops.iter().map(one).collect::<Result<Vec<Op<'_>>, u32>>()?;
        Ok(generation.gate().apply(&generation.host().store, &ops))
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
    match wall::guard(|| call.nest(&request)) {
        Ok(Some(found)) => answer(found, request, keep),
        Ok(None) => wall::guard(|| outside(call, request, keep)).unwrap_or_else(Outcome::panicked),
        Err(panic) => Outcome::panicked(panic),
    }
}

/// Asks what serves now, for what was admitted to nothing.
fn outside(call: &Call, request: abi::Request, caller: Keep) -> Outcome {
    let refuse = |why: &str| Outcome::told(Outcome::ERROR, 500, why.to_owned(), &[]);
    if call.generation().is_candidate() {
        return refuse("init can't call routes: nothing serves it yet");
    }
    match call.generation().host().front.get().and_then(Weak::upgrade) {
        Some(front) => front.ask(request, caller),
        None => refuse("there is no host any more"),
    }
}

impl Ask for Slot {
    fn ask(&self, request: abi::Request, caller: Keep) -> Outcome {
        answer(Call::find(&self.admit(), 0, &request), request, caller)
    }
}

/// The answer to a plugin that asked: there at once, or a future of it.
fn answer(found: Result<(Arc<Call>, RequestParts), Outcome>, mut request: abi::Request, keep: Keep) -> Outcome {
    let (callee, parts) = match found {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let rest = Pieces::take_of(&mut request).map(|pieces| Rest { pieces, _maker: Arc::clone(&keep) });
    let caller = Arc::clone(&keep);
    let answer = async move {
        let (parts, rest) = match rest {
            None => (parts, None),
            Some(rest) if callee.info().is_some_and(|handler| handler.is_streamed) => {
                let rest = rest.into_pieces(Arc::clone(callee.generation()) as Keep);
                (parts, Some(rest))
            }
            Some(mut rest) => match body::gather(&mut rest.pieces).await {
                Ok(body) => (RequestParts { body, ..parts }, None),
                Err(outcome) => return Outcome::told(Outcome::ERROR, outcome.status(), outcome.text(), &[]),
            },
        };
        match callee.invoke(parts, rest).await {
            Answer::Response(reply) => {
                let headers = reply.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
                let status = reply.status();
                match Body::of(reply) {
                    // The body stays where the called plugin put it.
                    Body::Whole(bytes) => Outcome::response(status, headers, bytes),
                    Body::File(path) => Outcome::file(status, headers, path.into_os_string().into_vec()),
                    Body::Stream(stream) => {
                        stream::give(Outcome::response(status, headers, Bytes::new()), stream.into_source(), Some(caller))
                    }
                }
            }
            Answer::Error { status, text } => Outcome::told(Outcome::ERROR, status, text, &[]),
            Answer::Panic(text) => Outcome::told(Outcome::ERROR, 500, format!("the called handler panicked: {text}"), &[]),
        }
    };
    task::give_unpolled(Box::pin(answer), Some(keep))
}

unsafe extern "C" fn context_detach(context: *const c_void) -> *const c_void {
    // SAFETY: the plugin passes a context that it holds.
    let call = unsafe { read(context) };
    Arc::into_raw(Call::detached(call.setup())).cast()
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
    let _ = wall::guard(|| generation.host().tasks.cancel(task));
}

unsafe extern "C" fn retiring(context: *const c_void) -> Outcome {
    // SAFETY: the plugin passes a context that it holds.
    let call = unsafe { read(context) };
    call.heed();
    let generation = call.generation();
    let keep: Keep = Arc::clone(generation) as Keep;
    task::give_unpolled(Box::pin(background::retiring(generation)), Some(keep))
}

/// The body of a request that a plugin makes for another one.
struct Rest {
    // Dropped first, by its maker's code.
    pieces: Pieces,
    _maker: Keep,
}

impl Rest {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        self.pieces.poll_next(context)
    }

    /// The body for the other plugin, the `taker`, which may keep it: what makes it stays, and what is woken for it.
    fn into_pieces(mut self, taker: Keep) -> Pieces {
        // By a method of the whole: a closure that names a field takes that field alone.
        stream::pieces(Box::new(move |context| self.poll_next(context)), Some(taker))
    }
}

unsafe extern "C" fn config(context: *const c_void) -> Address {
    // SAFETY: the plugin passes a context that it holds.
    let call = unsafe { read(context) };
    call.config().address()
}

/// How many characters of a topic's or a service's name are kept.
const LONGEST_TOPIC: usize = 200;

unsafe extern "C" fn emit(context: *const c_void, topic: Span, message: Span, flags: u32) -> Outcome {
    // SAFETY: the plugin passes a context that it holds.
    let generation = unsafe { read(context) }.generation();
    // SAFETY: the plugin keeps the topic during the call.
    let topic: String = unsafe { topic.text() }.chars().take(LONGEST_TOPIC).collect();
    // SAFETY: the plugin keeps the message during the call.
    let message = Bytes::copy_from_slice(unsafe { message.bytes() });
    let waits = flags & abi::Host::AT_ONCE == 0;
    wall::guard(|| dispatch::emit(generation, topic, message, waits)).unwrap_or_else(Outcome::panicked)
}

unsafe extern "C" fn service(context: *const c_void, name: Span, request: Span) -> Outcome {
    // SAFETY: the plugin passes a context that it holds.
    let generation = unsafe { read(context) }.generation();
    // SAFETY: the plugin keeps the name during the call.
    let name: String = unsafe { name.text() }.chars().take(LONGEST_TOPIC).collect();
    // SAFETY: the plugin keeps the request during the call.
    let request = Bytes::copy_from_slice(unsafe { request.bytes() });
    if generation.is_revoked() {
        return revoked();
    }
    let services = generation.host();
    if services.probe {
        let text = format!("the probe offers no services, so not {name} either: ask `ctx.is_probe()` first");
        return Outcome::told(Outcome::ERROR, 500, text, &[]);
    }
    let answer = |answered: Result<Bytes, String>| match answered {
        Ok(bytes) => Outcome::response(200, Vec::<(String, String)>::new(), bytes),
        Err(text) => Outcome::told(Outcome::ERROR, 500, text, &[]),
    };
    let caller = Caller::new(generation.plugin(), generation.number(), generation.is_candidate());
    match wall::guard(|| services.offers.ask(&name, request, caller)) {
        Ok(Asked::Now(answered)) => answer(answered),
        Ok(Asked::Later(mut answering)) => {
            let keep: Keep = Arc::clone(generation) as Keep;
            let answering = std::future::poll_fn(move |context| {
                let polled = wall::guard(|| answering.as_mut().poll(context));
                polled.unwrap_or_else(|panic| Poll::Ready(Err(host_services::panicked(&name, &panic.message)))).map(answer)
            });
            task::give_unpolled(Box::pin(answering), Some(keep))
        }
        Err(panic) => Outcome::panicked(panic),
    }
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
    let asked = wall::guard(|| generation.host().sockets.ask(generation.plugin(), &op, room, Bytes::copy_from_slice(bytes)));
    match asked {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(future)) => task::give_unpolled(future, Some(keep)),
        Err(panic) => Outcome::panicked(panic),
    }
}

fn revoked() -> Outcome {
    Outcome::refused(&Refusal::Revoked)
}
