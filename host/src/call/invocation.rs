//! How does a request run through a plugin?
//!
//! A [`Call`] holds the lease under which a request was admitted, and is what the plugin's `Ctx` leads to. An [`Invocation`] is the
//! handler's work: its first poll enters the plugin under that lease, and if the handler isn't done the very lease is kept; the slot is
//! never looked at again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use midair_abi::stream::Pieces;
use midair_abi::task::{Taken, lend};
use midair_abi::wall::Panic;
use midair_abi::{self as abi, Outcome};

use crate::call::context::Reaches;
use crate::call::refusal;
use crate::call::request::RequestParts;
use crate::live::comparison::Sample;
use crate::live::config::Config;
use crate::live::generation::Generation;
use crate::live::lease::{Lease, Named};
use crate::live::slot::Slot;
use crate::live::snapshot::{Setup, Snapshot, Target};
use crate::mutation::{self, Bug};
use crate::plugin::exports::{Calls, HandlerInfo, Part, told};
use crate::report::event::{Event, Kind};
use crate::resources::logs;
use crate::sys::native_resources;

/// How deep calls of routes by handlers may nest.
const DEEPEST: u32 = 16;

/// A call in flight, or an `init` that runs.
pub(crate) struct Call {
    admission: Admission,
    // Last: whatever the lease lets go of, this generation's code stays until the call is over.
    generation: Arc<Generation>,
}

/// What a call was admitted to.
enum Admission {
    /// A handler in a snapshot.
    Handler {
        lease: Lease<Snapshot>,
        /// Where generation and handler are in that snapshot.
        target: Target,
        /// Calls of routes by handlers that it is below.
        depth: u32,
        /// Whether a request waits for it, and not the host's own work.
        is_request: bool,
        /// Who hears how long it takes, if its code is being compared.
        sample: Option<Sample>,
    },
    /// In the probe: what is no handler, and reaches what the lease's snapshot has.
    Trial { lease: Lease<Snapshot>, config: Arc<Config> },
    /// Nothing: a candidate's `init`, or work that belongs to no request.
    Detached {
        config: Arc<Config>,
        /// The handler that the host calls by itself, if it is one.
        handler: Option<usize>,
        /// Whether it asked to be told when its generation is to end.
        heeds: Arc<AtomicBool>,
    },
}

impl Call {
    /// A call of `target`, which was found in the snapshot of `lease`.
    #[must_use]
    pub(crate) fn admit(lease: Lease<Snapshot>, target: Target) -> Arc<Self> {
        Self::admit_to(lease, target, true, None)
    }

    /// The same for a request whose code was drawn by lot.
    #[must_use]
    pub(crate) fn admit_sample(lease: Lease<Snapshot>, target: Target, sample: Sample) -> Arc<Self> {
        Self::admit_to(lease, target, true, Some(sample))
    }

    fn admit_to(lease: Lease<Snapshot>, target: Target, is_request: bool, sample: Option<Sample>) -> Arc<Self> {
        // Between two requests no plugin's frame is on this stack.
        native_resources::visit();
        logs::visit();
        let generation = Arc::clone(&lease.snapshot().generations()[target.generation]);
        if mutation::is(Bug::LeaseNotHeld) {
            let config = Arc::clone(&lease.snapshot().configs()[target.generation]);
            let admission = Admission::Detached { config, handler: Some(target.handler), heeds: Arc::default() };
            return Arc::new(Self { admission, generation });
        }
        let named = named(lease.snapshot(), &generation, target);
        let lease = lease.pin(&generation.host().leases, named);
        Arc::new(Self { admission: Admission::Handler { lease, target, depth: 0, is_request, sample }, generation })
    }

    /// A call of a handler that the host calls by its name, in what serves now; `None` if that has none such. How long it takes says nothing
    /// of how requests fare.
    #[must_use]
    pub(crate) fn admit_work(slot: &Slot, plugin: &str, calls: Calls, name: &str) -> Option<Arc<Self>> {
        let lease = slot.admit();
        let generations = lease.snapshot().generations();
        let generation = generations.iter().position(|generation| generation.plugin() == plugin)?;
        let mut handlers = generations[generation].handlers().iter();
        let handler = handlers.position(|handler| handler.calls == calls && handler.name == name)?;
        Some(Self::admit_to(lease, Target { generation, handler }, false, None))
    }

    /// What is admitted to nothing: a candidate's `init`, or work that belongs to no request.
    #[must_use]
    pub(crate) fn detached(setup: Setup) -> Arc<Self> {
        Self::detached_at(setup, None)
    }

    /// The same for a handler that the host calls by itself.
    #[must_use]
    pub(crate) fn detached_handler(setup: Setup, handler: usize) -> Arc<Self> {
        Self::detached_at(setup, Some(handler))
    }

    fn detached_at(Setup { generation, config }: Setup, handler: Option<usize>) -> Arc<Self> {
        Arc::new(Self { admission: Admission::Detached { config, handler, heeds: Arc::default() }, generation })
    }

    /// Whether it was admitted to nothing.
    #[must_use]
    pub(crate) fn is_detached(&self) -> bool {
        self.lease().is_none()
    }

    /// What it was admitted under.
    fn lease(&self) -> Option<&Lease<Snapshot>> {
        match &self.admission {
            Admission::Handler { lease, .. } | Admission::Trial { lease, .. } => Some(lease),
            Admission::Detached { .. } => None,
        }
    }

    /// It asked to be told when its generation is to end.
    pub(crate) fn heed(&self) {
        self.heeds().into_iter().for_each(|heeds| heeds.store(true, Ordering::Relaxed));
    }

    /// Whether it asked for that, as long as it runs; `None` of what was admitted to something.
    #[must_use]
    pub(crate) fn heeds(&self) -> Option<Arc<AtomicBool>> {
        match &self.admission {
            Admission::Detached { heeds, .. } => Some(Arc::clone(heeds)),
            Admission::Handler { .. } | Admission::Trial { .. } => None,
        }
    }

    /// Its generation with the config that it was admitted with.
    #[must_use]
    pub(crate) fn setup(&self) -> Setup {
        Setup { generation: Arc::clone(&self.generation), config: Arc::clone(self.config()) }
    }

    /// A probe's call of something that is no handler: it reaches what the lease's snapshot has.
    #[must_use]
    pub(crate) fn of_trial(lease: Lease<Snapshot>, Setup { generation, config }: Setup) -> Arc<Self> {
        // Recorded as nobody's: no handler has this place.
        let named = Named { generation: generation.key(), epoch: lease.snapshot().epoch(), handler: u32::MAX };
        let lease = lease.pin(&generation.host().leases, named);
        Arc::new(Self { admission: Admission::Trial { lease, config }, generation })
    }

    /// Whose code runs.
    #[must_use]
    pub(crate) fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// The config that the call was admitted with.
    #[must_use]
    pub(crate) fn config(&self) -> &Arc<Config> {
        match &self.admission {
            Admission::Handler { lease, target, .. } => &lease.snapshot().configs()[target.generation],
            Admission::Trial { config, .. } | Admission::Detached { config, .. } => config,
        }
    }

    /// The handler's name.
    #[must_use]
    pub(crate) fn handler(&self) -> &str {
        self.info().map_or("", |handler| &handler.name)
    }

    /// What the handler says about itself.
    #[must_use]
    pub(crate) fn info(&self) -> Option<&HandlerInfo> {
        self.generation.handlers().get(self.place()?)
    }

    /// The handler's place in its generation; `None` if it is none.
    fn place(&self) -> Option<usize> {
        match &self.admission {
            Admission::Handler { target, .. } => Some(target.handler),
            Admission::Detached { handler, .. } => *handler,
            Admission::Trial { .. } => None,
        }
    }

    /// Calls of routes by handlers that it is below.
    fn depth(&self) -> u32 {
        match &self.admission {
            Admission::Handler { depth, .. } => *depth,
            Admission::Trial { .. } | Admission::Detached { .. } => 0,
        }
    }

    /// A context for the plugin, counted, which the plugin releases when it is done with it.
    #[must_use]
    pub(crate) fn context(self: &Arc<Self>) -> abi::Context {
        abi::Context { data: Arc::into_raw(Arc::clone(self)).cast(), host: self.generation.host().functions }
    }

    /// Runs the handler. The request's parameters are those of the route; `rest` is its body, if the handler asks for it in pieces.
    pub(crate) fn invoke(self: Arc<Self>, parts: RequestParts, rest: Option<Pieces>) -> Invocation {
        let request = abi::Request::new(parts);
        let request = if let Some(rest) = rest { rest.give_with(request) } else { request };
        Invocation { work: Work::Ready(Box::new(request)), called: None, call: self }
    }

    /// Runs a handler that no request waits for, on the threads for that and under this name; whether it went well, and what time it took.
    /// It is given up when its generation was replaced and it doesn't end.
    pub(crate) fn work(
        self: Arc<Self>,
        name: String,
        parts: RequestParts,
    ) -> impl Future<Output = (bool, Duration)> + Send + 'static {
        let (call, generation) = (Arc::clone(&self), Arc::clone(&self.generation));
        let about = generation.about(name, true);
        let runs = generation.host().tasks.call(about, async move { self.invoke(parts, None).await.has_failed() });
        async move {
            let (ran, took) = runs.await;
            if ran.is_lost() {
                call.failed("it waits for what nothing can wake it for, and was dropped".to_owned());
            }
            // Whoever waits for the end finds its lease ended.
            drop(call);
            (ran.is_well(), took)
        }
    }

    /// Another route in the same snapshot: its call, and what to invoke it with. None for what was admitted to nothing.
    ///
    /// # Errors
    ///
    /// An outcome that says why there is nothing to ask.
    pub(crate) fn nest(&self, request: &abi::Request) -> Option<Result<(Arc<Self>, RequestParts), Outcome>> {
        self.lease().map(|lease| Self::find(lease, self.depth(), request))
    }

    /// The call of the route that a request leads to, below one at this depth, and what to invoke it with.
    ///
    /// # Errors
    ///
    /// As [`nest`](Self::nest).
    pub(crate) fn find(lease: &Lease<Snapshot>, depth: u32, request: &abi::Request) -> Result<(Arc<Self>, RequestParts), Outcome> {
        if depth == DEEPEST {
            let text = format!("calls nest deeper than {DEEPEST}: does a route call itself?");
            return Err(Outcome::told(Outcome::ERROR, 508, text, &[]));
        }
        let anew = if mutation::is(Bug::PointerPerHandler) { Snapshot::last_begun() } else { None };
        let snapshot = anew.as_deref().unwrap_or_else(|| lease.snapshot());
        let (target, params) = match refusal::routed(snapshot, request.method(), request.path()) {
            Ok(found) => found,
            Err(no_route) => {
                let (status, text) = (no_route.status().as_u16(), no_route.text(request.path()));
                return Err(Outcome::response(status, Vec::<(String, String)>::new(), text));
            }
        };
        let generation = Arc::clone(&snapshot.generations()[target.generation]);
        let lease = lease.nest(&generation.host().leases, named(snapshot, &generation, target));
        let admission = Admission::Handler { lease, target, depth: depth + 1, is_request: true, sample: None };
        let call = Arc::new(Self { admission, generation });
        let header = |(name, value): (&str, &[u8])| {
            let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, http::HeaderValue::from_bytes(value).ok()?))
        };
        let mut headers = http::HeaderMap::new();
        for (name, value) in request.headers().filter_map(header) {
            headers.append(name, value);
        }
        let parts = RequestParts {
            method: http::Method::from_bytes(request.method().as_bytes()).unwrap_or_default(),
            path: request.path().to_owned(),
            query: request.query().to_owned(),
            params,
            headers,
            body: bytes::Bytes::copy_from_slice(request.body()),
            peer: request.peer(),
        };
        Ok((call, parts))
    }
}

fn named(snapshot: &Snapshot, generation: &Generation, target: Target) -> Named {
    let handler = u32::try_from(target.handler).unwrap_or(u32::MAX);
    Named { generation: generation.key(), epoch: snapshot.epoch(), handler }
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

impl Answer {
    /// Whether it counts as failed.
    #[must_use]
    pub(crate) fn has_failed(&self) -> bool {
        match self {
            Self::Response(reply) => !(200..500).contains(&reply.status()),
            Self::Error { .. } | Self::Panic(_) => true,
        }
    }
}

/// What a handler gets that no request calls.
#[must_use]
pub(crate) fn parts(params: Vec<(String, String)>, body: bytes::Bytes) -> RequestParts {
    let (method, headers) = (http::Method::POST, http::HeaderMap::new());
    RequestParts { method, path: String::new(), query: String::new(), params, headers, body, peer: None }
}

/// A plugin's response with what keeps it readable.
pub(crate) struct Reply {
    // Dropped first, by the plugin's code.
    outcome: Outcome,
    call: Arc<Call>,
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

    /// Whether its body is a file, whose path is what it has instead.
    #[must_use]
    pub(crate) fn is_file(&self) -> bool {
        self.outcome.kind() == Outcome::FILE
    }

    /// Whether its body goes on.
    #[must_use]
    pub(crate) fn is_streamed(&self) -> bool {
        self.outcome.is_streamed()
    }

    /// The response, and the call that it must go before.
    #[must_use]
    pub(crate) fn into_parts(self) -> (Outcome, Arc<Call>) {
        (self.outcome, self.call)
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
                let (Some(code), Some(place)) = (this.call.generation.code(), this.call.place()) else {
                    let text = "there is no handler to call".to_owned();
                    return Poll::Ready(Answer::Error { status: 500, text });
                };
                let handle = this.call.context();
                this.called = this.call.wants_time().then(Instant::now);
                let outcome = lend(context.waker(), |waker| code.call(place, handle, *request, waker));
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
        match &self.admission {
            Admission::Handler { sample: Some(_), .. } => true,
            Admission::Handler { is_request: true, .. } => self.generation.counts().wants_time(),
            Admission::Handler { .. } | Admission::Trial { .. } | Admission::Detached { .. } => false,
        }
    }

    /// Who hears how long it took, if its code is being compared.
    fn sample(&self) -> Option<&Sample> {
        match &self.admission {
            Admission::Handler { sample, .. } => sample.as_ref(),
            Admission::Trial { .. } | Admission::Detached { .. } => None,
        }
    }

    /// Counts and tells how work ended that isn't a handler's.
    pub(crate) fn ended(&self, name: &str, outcome: &Outcome) {
        if outcome.kind() == Outcome::PANIC {
            self.generation.counts().panics.fetch_add(1, Ordering::Relaxed);
            self.generation.answered(true, None, false);
            self.tell_panic(Kind::Task, name, outcome.panic());
        }
    }

    /// What called the handler.
    fn kind(&self) -> Kind {
        match self.info().map(|handler| handler.calls) {
            Some(Calls::Requests | Calls::Socket(Part::Open)) => Kind::Request,
            Some(Calls::Service) => Kind::Task,
            Some(Calls::Beats) => Kind::Beat,
            Some(Calls::Messages) => Kind::Message,
            Some(Calls::Socket(_)) => Kind::Socket,
            None => Kind::Outside,
        }
    }

    /// Whether a client asked for it, and not other code.
    fn is_asked(&self) -> bool {
        self.depth() == 0 && self.info().is_some_and(|handler| handler.calls.is_asked())
    }

    fn tell_panic(&self, kind: Kind, handler: &str, panic: Panic) {
        if let Some(code) = self.generation.code() {
            let whose = (self.generation.plugin().to_owned(), self.generation.number());
            self.generation.host().frames.tell(code.module(), whose, (kind, handler.to_owned()), panic);
        }
    }

    /// Counts a call that was given up, and tells why.
    pub(crate) fn failed(&self, error: String) {
        // Its time is the host's limit, not its own: it counts as failed and no more.
        self.generation.answered(true, None, self.is_asked());
        self.say_failed(error);
    }

    /// Tells that the body of an answer broke off, and why; it counts as an answer that failed, since the head was counted before. The
    /// reason in one line.
    pub(crate) fn broke_off(&self, outcome: Outcome) -> String {
        self.generation.answered(true, None, false);
        if outcome.kind() == Outcome::PANIC {
            return format!("its maker panicked: {}", self.panicked(&outcome));
        }
        let reason = match outcome.kind() {
            Outcome::ERROR => outcome.text(),
            other => format!("a piece of the unknown kind {other}"),
        };
        self.say_failed(format!("the body broke off: {reason}"));
        reason
    }

    /// Counts a panic and tells of it, once its frames have names. The panic in one line.
    fn panicked(&self, outcome: &Outcome) -> String {
        if !mutation::is(Bug::PanicUncounted) {
            self.generation.counts().panics.fetch_add(1, Ordering::Relaxed);
        }
        let panic = outcome.panic();
        let text = told(&panic);
        self.tell_panic(self.kind(), self.handler(), panic);
        text
    }

    fn say_failed(&self, error: String) {
        let (generation, kind, handler) = (&self.generation, self.kind(), self.handler().to_owned());
        let (plugin, number) = (generation.plugin().to_owned(), generation.number());
        generation.host().bus.say(Event::Failed { plugin, generation: number, handler, kind, error });
    }

    /// Turns an outcome into an answer, counts it and tells of what went wrong.
    fn answer(self: &Arc<Self>, outcome: Outcome, took: Option<Duration>) -> Answer {
        let (kind, status) = (outcome.kind(), outcome.status());
        let is_response = kind == Outcome::DONE || kind == Outcome::FILE;
        let has_failed = !is_response || !(200..500).contains(&status);
        let has_failed = has_failed && !(kind == Outcome::PANIC && mutation::is(Bug::PanicUncounted));
        self.generation.answered(has_failed, took, self.is_asked());
        if let (Some(sample), Some(took), false) = (self.sample(), took, has_failed) {
            sample.record(took);
        }
        let (status, text) = match kind {
            Outcome::DONE | Outcome::FILE if status >= 200 => return Answer::Response(Reply { outcome, call: Arc::clone(self) }),
            Outcome::DONE | Outcome::FILE => (500, format!("the handler answered with the status {status}, which is no final one")),
            Outcome::ERROR => (status, outcome.text()),
            Outcome::PANIC => return Answer::Panic(self.panicked(&outcome)),
            other => (500, format!("the handler answered with an unknown kind {other}")),
        };
        self.say_failed(text.clone());
        Answer::Error { status, text }
    }
}
