//! How does a request run through a plugin?
//!
//! A [`Call`] holds the lease under which a request was admitted, and is what the plugin's `Ctx` leads to. An [`Invocation`] is the
//! handler's work: its first poll enters the plugin under that lease, and if the handler isn't done the very lease is kept; the slot is
//! never looked at again.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use midair_plugin::abi::{self, Outcome, RequestParts};
use midair_plugin::task::{self, Keep, Taken, lend};
use midair_plugin::wall::Panic;

use crate::census;
use crate::entry::told;
use crate::event::Event;
use crate::generation::{Ask, Generation};
use crate::lease::{Lease, Named};
use crate::route::Found;
use crate::seed::{self, Bug};
use crate::slot::Slot;
use crate::snapshot::{Snapshot, Target};

/// How deep calls of routes by handlers may nest.
const DEEPEST: u32 = 16;

/// A call in flight, or an `init` that runs.
pub(crate) struct Call {
    /// None for what was admitted to nothing: a candidate, or work that belongs to no request.
    lease: Option<Lease<Snapshot>>,
    depth: u32,
    handler: usize,
    // Last: whatever the lease lets go of, this generation's code stays until the call is over.
    generation: Arc<Generation>,
}

impl Call {
    /// A call of `target`, which was found in the snapshot of `lease`.
    #[must_use]
    pub(crate) fn admit(lease: Lease<Snapshot>, target: Target) -> Arc<Self> {
        // Between two requests no plugin's frame is on this stack.
        census::visit();
        let generation = Arc::clone(&lease.snapshot().generations()[target.generation]);
        let named = named(lease.snapshot(), &generation, target);
        let lease = lease.pin(&generation.services().leases, named);
        let lease = (!seed::is(Bug::LeaseNotHeld)).then_some(lease);
        Arc::new(Self { lease, depth: 0, handler: target.handler, generation })
    }

    /// What is admitted to nothing: a candidate's `init`, or work that belongs to no request.
    #[must_use]
    pub(crate) fn free(generation: Arc<Generation>) -> Arc<Self> {
        Arc::new(Self { lease: None, depth: 0, handler: usize::MAX, generation })
    }

    /// The same for a handler that the host calls by itself.
    #[must_use]
    pub(crate) fn free_at(generation: Arc<Generation>, handler: usize) -> Arc<Self> {
        Arc::new(Self { lease: None, depth: 0, handler, generation })
    }

    /// Whether it was admitted to nothing.
    #[must_use]
    pub(crate) fn is_free(&self) -> bool {
        self.lease.is_none()
    }

    /// A probe's call of something that is no handler: it reaches what the lease's snapshot has.
    #[must_use]
    pub(crate) fn of_trial(lease: Lease<Snapshot>, generation: Arc<Generation>) -> Arc<Self> {
        // Recorded as nobody's: no handler has this place.
        let named = Named { generation: generation.key(), epoch: lease.snapshot().epoch(), handler: u32::MAX };
        let lease = lease.pin(&generation.services().leases, named);
        Arc::new(Self { lease: Some(lease), depth: 0, handler: usize::MAX, generation })
    }

    /// Whose code runs.
    #[must_use]
    pub(crate) fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// The handler's name.
    #[must_use]
    pub(crate) fn handler(&self) -> &str {
        self.generation.handlers().get(self.handler).map_or("", |handler| &handler.name)
    }

    /// A context for the plugin, counted, which the plugin releases when it is done with it.
    #[must_use]
    pub(crate) fn context(self: &Arc<Self>) -> abi::Context {
        abi::Context { data: Arc::into_raw(Arc::clone(self)).cast(), host: self.generation.services().functions }
    }

    /// Runs the handler. The request's parameters are those of the route.
    pub(crate) fn invoke(self: Arc<Self>, parts: RequestParts) -> Invocation {
        Invocation { work: Work::Ready(Box::new(abi::Request::new(parts))), called: None, call: self }
    }

    /// Asks another route: in the same snapshot, or, without one, of what serves now.
    pub(crate) fn nest(&self, request: &abi::Request) -> Outcome {
        match &self.lease {
            Some(lease) => told_to(Self::find(lease, self.depth, request)),
            None if self.generation.is_candidate() => {
                Outcome::told(Outcome::ERROR, 500, "init can't call routes: nothing serves it yet".to_owned(), &[])
            }
            None => match self.generation.services().front.get().and_then(Weak::upgrade) {
                Some(front) => front.ask(request),
                None => Outcome::told(Outcome::ERROR, 500, "there is no host any more".to_owned(), &[]),
            },
        }
    }

    /// The call of the route that a request leads to, below one at this depth.
    fn find(lease: &Lease<Snapshot>, depth: u32, request: &abi::Request) -> Result<Invocation, Outcome> {
        let refuse = |status, text: String| Err(Outcome::response(status, Vec::<(String, String)>::new(), text));
        if depth == DEEPEST {
            let text = format!("calls nest deeper than {DEEPEST}: does a route call itself?");
            return Err(Outcome::told(Outcome::ERROR, 508, text, &[]));
        }
        let anew = if seed::is(Bug::PointerPerHandler) { Snapshot::last_begun() } else { None };
        let snapshot = anew.as_deref().unwrap_or_else(|| lease.snapshot());
        let (target, params) = match snapshot.find(request.method(), request.path()) {
            Found::Handler(target, params) => (target, params),
            Found::Upgrade => return refuse(426, format!("{} takes WebSockets only", request.path())),
            Found::OtherMethods(allow) => return refuse(405, format!("{} takes {allow}", request.path())),
            Found::Nothing => return refuse(404, format!("nothing answers {}", request.path())),
        };
        let Some(params) = decode(params) else { return refuse(400, format!("{} isn't UTF-8", request.path())) };
        let generation = Arc::clone(&snapshot.generations()[target.generation]);
        let lease = lease.nest(&generation.services().leases, named(snapshot, &generation, target));
        let call = Arc::new(Self { lease: Some(lease), depth: depth + 1, handler: target.handler, generation });
        let header = |(name, value): (&str, &[u8])| {
            let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, http::HeaderValue::from_bytes(value).ok()?))
        };
        let mut headers = http::HeaderMap::new();
        for (name, value) in request.headers().filter_map(header) {
            headers.append(name, value);
        }
        Ok(call.invoke(RequestParts {
            method: http::Method::from_bytes(request.method().as_bytes()).unwrap_or_default(),
            path: request.path().to_owned(),
            query: request.query().to_owned(),
            params,
            headers,
            body: bytes::Bytes::copy_from_slice(request.body()),
            peer: request.peer(),
        }))
    }
}

impl Ask for Slot {
    fn ask(&self, request: &abi::Request) -> Outcome {
        told_to(Call::find(&self.admit(), 0, request))
    }
}

/// The answer to a plugin that asked: there at once, or a future of it.
fn told_to(asked: Result<Invocation, Outcome>) -> Outcome {
    let invocation = match asked {
        Ok(invocation) => invocation,
        Err(refusal) => return refusal,
    };
    let keep: Keep = Arc::clone(&invocation.call) as Keep;
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

fn named(snapshot: &Snapshot, generation: &Generation, target: Target) -> Named {
    let handler = u32::try_from(target.handler).unwrap_or(u32::MAX);
    Named { generation: generation.key(), epoch: snapshot.epoch(), handler }
}

/// Percent-decodes the parameters; `None` if one isn't UTF-8.
#[must_use]
pub(crate) fn decode(mut params: Vec<(String, String)>) -> Option<Vec<(String, String)>> {
    for (_, value) in &mut params {
        if value.contains('%') {
            *value = percent_encoding::percent_decode_str(value).decode_utf8().ok()?.into_owned();
        }
    }
    Some(params)
}

/// A handler at work. Dropping it drops the handler's future, on its own generation's code.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Invocation {
    // Dropped first: a future of the plugin must go before the call that keeps its code.
    work: Work,
    /// When the handler was called, if that is wanted: what came before, such as a slow upload, isn't its own time.
    called: Option<Instant>,
    call: Arc<Call>,
}

enum Work {
    Ready(Box<abi::Request>),
    Pending(Taken),
    Done,
}

/// What a handler answered.
pub(crate) enum Answer {
    /// A response; body and headers stay in the plugin's memory until it is dropped.
    Response(Reply),
    /// An error that the handler returned. Its text is the operator's.
    Error {
        /// The status.
        status: u16,
        /// The text.
        text: String,
    },
    /// The handler panicked; what is known of it.
    Panic(String),
}

/// A plugin's response with what keeps it readable.
pub(crate) struct Reply {
    // Dropped first, by the plugin's code.
    outcome: Outcome,
    _call: Arc<Call>,
}

impl Reply {
    /// The status.
    #[must_use]
    pub(crate) fn status(&self) -> u16 {
        self.outcome.status()
    }

    /// The headers.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.outcome.pairs()
    }
}

impl AsRef<[u8]> for Reply {
    fn as_ref(&self) -> &[u8] {
        self.outcome.body()
    }
}

impl Future for Invocation {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let this = &mut *self;
        let outcome = match std::mem::replace(&mut this.work, Work::Done) {
            Work::Ready(request) => {
                let Some(code) = this.call.generation.code() else { return Poll::Ready(Answer::Panic(String::new())) };
                let handle = this.call.context();
                this.called = this.call.wants_time().then(Instant::now);
                let outcome = lend(context.waker(), |waker| code.call(this.call.handler, handle, *request, waker));
                match Taken::take(outcome) {
                    // Its first poll is done and has our waker.
                    Ok(taken) => {
                        this.work = Work::Pending(taken);
                        return Poll::Pending;
                    }
                    Err(outcome) => outcome,
                }
            }
            Work::Pending(mut taken) => match Pin::new(&mut taken).poll(context) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => {
                    this.work = Work::Pending(taken);
                    return Poll::Pending;
                }
            },
            Work::Done => return Poll::Pending,
        };
        let took = this.called.map(|called| called.elapsed());
        Poll::Ready(this.call.answer(outcome, took))
    }
}

impl Call {
    /// How long work takes that no request waits for says nothing.
    fn wants_time(&self) -> bool {
        self.lease.is_some() && self.generation.counts().wants_time()
    }

    /// Counts and tells how work ended that isn't a handler's.
    pub(crate) fn ended(&self, name: &str, outcome: &Outcome) {
        if outcome.kind() == Outcome::PANIC {
            self.generation.counts().panics.fetch_add(1, Ordering::Relaxed);
            self.generation.answered(true, None);
            self.tell_panic(name, outcome.panic());
        }
    }

    fn tell_panic(&self, handler: &str, panic: Panic) {
        if let Some(code) = self.generation.code() {
            let (plugin, number) = (self.generation.plugin().to_owned(), self.generation.number());
            self.generation.services().frames.tell(code.module(), plugin, number, handler.to_owned(), panic);
        }
    }

    /// Counts a call that was given up, and tells why.
    #[cfg(feature = "http")]
    pub(crate) fn failed(&self, error: String) {
        // Its time is the host's limit, not its own: it counts as failed and no more.
        self.generation.answered(true, None);
        self.say(|plugin, generation, handler| Event::Failed { plugin, generation, handler, error });
    }

    fn say(&self, event: impl FnOnce(String, u64, String) -> Event) {
        let generation = &self.generation;
        let event = event(generation.plugin().to_owned(), generation.number(), self.handler().to_owned());
        generation.services().bus.say(event);
    }

    /// Turns an outcome into an answer, counts it and tells of what went wrong.
    fn answer(self: &Arc<Self>, outcome: Outcome, took: Option<Duration>) -> Answer {
        let (kind, status) = (outcome.kind(), outcome.status());
        let has_failed = kind != Outcome::DONE || !(200..500).contains(&status);
        let has_failed = has_failed && !(kind == Outcome::PANIC && seed::is(Bug::PanicUncounted));
        if kind == Outcome::PANIC {
            self.generation.counts().panics.fetch_add(1, Ordering::Relaxed);
        }
        self.generation.answered(has_failed, took);
        let (status, text) = match kind {
            Outcome::DONE if status >= 200 => return Answer::Response(Reply { outcome, _call: Arc::clone(self) }),
            Outcome::DONE => (500, format!("the handler answered with the status {status}, which is no final one")),
            Outcome::ERROR => (status, outcome.text()),
            Outcome::PANIC => {
                let panic = outcome.panic();
                let text = told(&panic);
                self.tell_panic(self.handler(), panic);
                return Answer::Panic(text);
            }
            other => (500, format!("the handler answered with an unknown kind {other}")),
        };
        self.say(|plugin, generation, handler| Event::Failed { plugin, generation, handler, error: text.clone() });
        Answer::Error { status, text }
    }
}
