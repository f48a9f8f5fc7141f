//! How does an HTTP request reach a handler?
//!
//! hyper reads the head; the slot is loaded once, which is the request's admission; the route is looked up in that snapshot; the body is
//! read up to its limit; the handler runs. Workers run plugin code, so nothing that a swap needs may wait for one.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use midair_plugin::abi::RequestParts;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use crate::call::{Answer, Call, decode};
use crate::error::{Code, Error, Result};
use crate::event::Event;
use crate::generation::Generation;
use crate::route::Found;
use crate::swap::Host;

/// What a client may ask for and how long it may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest request body, in bytes.
    pub body: usize,
    /// From the first byte of a request's head to its last.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// From the end of the body to the answer; a handler that takes longer is dropped where it waits.
    pub request_timeout: Option<Duration>,
    /// Threads that run handlers; as many as processors if not given.
    pub workers: Option<usize>,
    /// Whether answers say which generation made them.
    pub generation_header: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 2 << 20,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            request_timeout: None,
            workers: None,
            generation_header: true,
        }
    }
}

/// A bound listener that doesn't accept yet.
pub struct Server {
    host: Host,
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

/// A listener that serves.
pub struct Running {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    in_flight: Arc<AtomicUsize>,
    ended: Receiver<()>,
}

/// Every answer of the host itself, and of plugins.
type Answered = Response<Full<Bytes>>;

static GENERATION: HeaderName = HeaderName::from_static("x-midair-generation");

impl Server {
    /// Binds `address`; port 0 picks a free one.
    ///
    /// # Errors
    ///
    /// If the address can't be had, naming it.
    pub fn bind(host: Host, address: SocketAddr, limits: Limits) -> Result<Self> {
        let failed = |error: std::io::Error| {
            let reason = match error.kind() {
                std::io::ErrorKind::AddrInUse => "another program listens there already",
                std::io::ErrorKind::PermissionDenied => "this user may not listen there",
                _ => "it can't be listened on",
            };
            Error::fatal(Code::Io, address.to_string(), reason)
                .caused_by(error)
                .help("choose another address with --listen ADDRESS, or port 0 for a free one")
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { host, listener, address, limits })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Starts to serve, on threads of its own.
    ///
    /// # Errors
    ///
    /// If the threads can't be started.
    pub fn start(self) -> Result<Running> {
        let mut builder = Builder::new_multi_thread();
        if let Some(workers) = self.limits.workers {
            builder.worker_threads(workers.max(1));
        }
        let failed =
            |error: std::io::Error| Error::fatal(Code::Io, "the request workers", "they can't be started").caused_by(error);
        let runtime = builder.thread_name("midair-worker").enable_all().build().map_err(failed)?;
        let (stop, stopped) = watch::channel(false);
        let (done, ended): (Sender<()>, Receiver<()>) = channel();
        let in_flight = Arc::new(AtomicUsize::new(0));
        let host = self.host.clone();
        let front = Arc::new(Front { host: self.host, limits: self.limits, in_flight: Arc::clone(&in_flight) });
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener).map_err(failed)?
        };
        runtime.spawn(async move {
            accept(&listener, front, stopped).await;
            // Nobody may wait for it any more.
            let _ = done.send(());
        });
        let pulse = Pulse { handle: runtime.handle().clone(), host, stopped: stop.subscribe() };
        std::thread::Builder::new().name("midair-pulse".to_owned()).spawn(move || pulse.watch()).map_err(failed)?;
        Ok(Running { runtime, stop, in_flight, ended })
    }
}

impl Running {
    /// How many requests are being answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Accepts no more, lets what runs finish until the deadline, and says how many requests were left. Blocks; returns at the deadline
    /// even if every worker is stuck in a handler.
    pub fn drain(self, deadline: Duration) -> usize {
        // The accepting task may be gone already.
        let _ = self.stop.send(true);
        let _ = self.ended.recv_timeout(deadline);
        let left = self.in_flight();
        self.runtime.shutdown_background();
        left
    }
}

/// Asks the workers for a sign of life, from a thread that isn't one of them.
struct Pulse {
    handle: Handle,
    host: Host,
    stopped: watch::Receiver<bool>,
}

/// How long the workers may leave a sign of life unanswered before that is told, and the pause between two.
const PULSE: Duration = Duration::from_secs(1);

impl Pulse {
    fn watch(self) {
        let mut busy = false;
        while !*self.stopped.borrow() {
            let (beat, beats) = channel();
            self.handle.spawn(async move { beat.send(()) });
            match beats.recv_timeout(PULSE) {
                Ok(()) => {
                    if std::mem::take(&mut busy) {
                        self.host.events().say(Event::WorkersFree);
                    }
                    std::thread::park_timeout(PULSE);
                }
                // The runtime ended, and the task with it.
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if !busy => {
                    busy = true;
                    let leases = self.host.status().leases.into_iter();
                    let mut handlers: Vec<String> =
                        leases.map(|lease| format!("{}={} {}", lease.plugin, lease.generation, lease.handler)).collect();
                    handlers.sort_unstable();
                    handlers.dedup();
                    self.host.events().say(Event::WorkersBusy { handlers });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

async fn accept(listener: &tokio::net::TcpListener, front: Arc<Front>, mut stopped: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(front.limits.header_timeout);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a connection that broke at once: the next one may do.
                front.host.events().say(Event::Warning { message: format!("a connection can't be accepted: {error}") });
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Answers are small and wait for nothing; a socket that refuses the option is still a socket.
        let _ = stream.set_nodelay(true);
        let front = Arc::clone(&front);
        let service = hyper::service::service_fn(move |request| {
            let front = Arc::clone(&front);
            async move { Ok::<_, Infallible>(front.answer(request, peer).await) }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // What a client does to its own connection is no event.
            let _ = connection.await;
        });
    }
    graceful.shutdown().await;
}

/// What all requests share.
struct Front {
    host: Host,
    limits: Limits,
    in_flight: Arc<AtomicUsize>,
}

/// A request that is counted until its answer's body is dropped or written.
struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Front {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answered {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let _counted = InFlight(Arc::clone(&self.in_flight));
        let head = *request.method() == Method::HEAD;
        let mut answered = self.route(request, peer).await;
        if head {
            let length = answered.body().size_hint().exact().unwrap_or_default();
            if !answered.headers().contains_key(CONTENT_LENGTH) {
                answered.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            *answered.body_mut() = Full::default();
        }
        answered
    }

    async fn route(&self, request: Request<Incoming>, peer: SocketAddr) -> Answered {
        let (parts, body) = request.into_parts();
        // The admission: from here on this request sees one snapshot, whatever is published.
        let call = {
            let lease = self.host.slot().admit();
            let snapshot = lease.snapshot();
            if snapshot.generations().is_empty() {
                let text = "no plugin serves yet: its first build hasn't succeeded\n";
                return own(StatusCode::SERVICE_UNAVAILABLE, text.to_owned());
            }
            match snapshot.find(parts.method.as_str(), parts.uri.path()) {
                Found::Handler(target, params) => (Call::admit(lease, target), params),
                Found::OtherMethods(allow) => return other_methods(&parts.method, &allow),
                Found::Nothing => return own(StatusCode::NOT_FOUND, format!("nothing answers {}\n", parts.uri.path())),
            }
        };
        let (call, params) = call;
        let generation = Arc::clone(call.generation());
        let mut answered = match self.gather(parts, body, params, peer).await {
            Ok(parts) => self.run(call, parts).await,
            Err(refusal) => refusal,
        };
        if self.limits.generation_header
            && let Some(value) = header_of(&generation)
        {
            answered.headers_mut().insert(GENERATION.clone(), value);
        }
        answered
    }

    /// Reads the body and puts the request together.
    async fn gather(
        &self,
        parts: http::request::Parts,
        body: Incoming,
        params: Vec<(String, String)>,
        peer: SocketAddr,
    ) -> Result<RequestParts, Answered> {
        let Some(params) = decode(params) else {
            return Err(own(StatusCode::BAD_REQUEST, "the path isn't UTF-8\n".to_owned()));
        };
        let too_large = || own(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {} bytes\n", self.limits.body));
        if body.size_hint().lower() > self.limits.body as u64 {
            return Err(too_large());
        }
        let body = if body.is_end_stream() {
            Bytes::new()
        } else {
            match tokio::time::timeout(self.limits.body_timeout, Limited::new(body, self.limits.body).collect()).await {
                Ok(Ok(body)) => body.to_bytes(),
                Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
                Ok(Err(error)) => return Err(own(StatusCode::BAD_REQUEST, format!("the body can't be read: {error}\n"))),
                Err(_) => return Err(own(StatusCode::REQUEST_TIMEOUT, "the body took too long\n".to_owned())),
            }
        };
        Ok(RequestParts {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            params,
            headers: parts.headers,
            body,
            peer: Some(peer),
        })
    }

    async fn run(&self, call: Arc<Call>, parts: RequestParts) -> Answered {
        let overdue = Arc::clone(&call);
        let invocation = call.invoke(parts);
        let answer = match self.limits.request_timeout {
            None => invocation.await,
            Some(limit) => match tokio::time::timeout(limit, invocation).await {
                Ok(answer) => answer,
                Err(_) => {
                    let text = format!("the handler took longer than {} s", limit.as_secs_f64());
                    overdue.failed(text.clone());
                    return own(StatusCode::GATEWAY_TIMEOUT, format!("{text}\n"));
                }
            },
        };
        let dev = self.host.is_dev();
        let shown = |text: String| if dev { text } else { "internal error".to_owned() };
        match answer {
            Answer::Response(reply) => {
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::from_u16(reply.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                for (name, value) in reply.headers() {
                    // What HTTP doesn't allow can't come from this side's friendly layer; another's is left out.
                    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
                        response.headers_mut().append(name, value);
                    }
                }
                // The body is written from where the plugin put it; the lease ends when hyper has sent it.
                response.map(|()| Full::new(Bytes::from_owner(reply)))
            }
            Answer::Error { status, text } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                own(status, format!("{}\n", shown(text)))
            }
            Answer::Panic(text) => {
                own(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", shown(format!("the handler panicked: {text}"))))
            }
        }
    }
}

/// An answer of the host itself.
fn own(status: StatusCode, text: String) -> Answered {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// 405, or the answer to OPTIONS.
fn other_methods(method: &Method, allow: &str) -> Answered {
    let mut response = if *method == Method::OPTIONS {
        let mut response = own(StatusCode::NO_CONTENT, String::new());
        response.headers_mut().remove(CONTENT_TYPE);
        response
    } else {
        own(StatusCode::METHOD_NOT_ALLOWED, format!("{method} isn't answered here, only {allow}\n"))
    };
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

fn header_of(generation: &Generation) -> Option<HeaderValue> {
    HeaderValue::try_from(generation.to_string()).ok()
}
