//! How does an HTTP request reach a handler?
//!
//! hyper reads the head, `answer` admits it and finds the handler, the body is read up to its limit, the handler runs. Workers run plugin
//! code, so nothing that a swap needs may wait for one; a thread beside them notices when all of them are inside handlers.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;

use super::socket::{Carrier, SocketLimits};
use crate::call::body::Body;
use crate::call::respond::{Answered, Asked, admit, own, without_body};
use crate::http::body::{InFlight, Outgoing};
use crate::http::file::{self, Conditions};
use crate::http::limit::within;
use crate::http::upload::{self, Terms};
use crate::report::error::{Code, Error, Result};
use crate::report::event::{Event, Left};
use crate::swap::Host;
use crate::sys::native_resources;

/// What a client may ask for and how long it may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest request body, in bytes, where a route says nothing.
    pub body: usize,
    /// From the end of one request on a connection, or its start, to the end of the next one's head.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body; also how long a client may take none of its answer. Of a body that its handler asks
    /// for in pieces: how long the handler may wait for 2 MiB of it.
    pub body_timeout: Duration,
    /// From the end of the body, or of the head if the handler asks for the body in pieces, to the head of the answer; a handler that takes
    /// longer is dropped where it waits. Each event of a WebSocket is held to it too, of a pinned one none.
    pub request_timeout: Option<Duration>,
    /// Threads that run handlers; as many as processors if not given.
    pub workers: Option<usize>,
    /// Whether answers say which generation made them.
    pub generation_header: bool,
    /// Of WebSockets.
    pub sockets: SocketLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 2 << 20,
            // Longer than proxies keep their idle connections, so that it is they who close them.
            header_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            request_timeout: None,
            workers: None,
            generation_header: true,
            sockets: SocketLimits::default(),
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
    host: Host,
    /// Taken by `Drop` alone.
    runtime: Option<Runtime>,
    stop: watch::Sender<bool>,
    in_flight: Arc<AtomicUsize>,
    ended: Receiver<Infallible>,
}

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
        let Self { host, listener, limits, .. } = self;
        let mut builder = Builder::new_multi_thread();
        if let Some(workers) = limits.workers {
            builder.worker_threads(workers.max(1));
        }
        let failed =
            |error: std::io::Error| Error::fatal(Code::Io, "the request workers", "they can't be started").caused_by(error);
        let runtime =
            builder.thread_name("midair-worker").on_thread_park(native_resources::visit).enable_all().build().map_err(failed)?;
        let (stop, stopped) = watch::channel(false);
        let (alive, ended) = channel();
        let in_flight = Arc::new(AtomicUsize::new(0));
        let pulse = Pulse { handle: runtime.handle().clone(), host: host.clone(), stopped: stopped.clone() };
        // Held by connections of any kind: that none is left is what `drain` waits for.
        let carrier = Carrier {
            host: host.clone(),
            limits: limits.sockets,
            request_timeout: limits.request_timeout,
            in_flight: Arc::clone(&in_flight),
            stopped: stopped.clone(),
            _alive: alive,
        };
        let front = Arc::new(Front { host: host.clone(), limits, in_flight: Arc::clone(&in_flight), carrier: Arc::new(carrier) });
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(failed)?
        };
        runtime.spawn(accept(listener, front, stopped));
        std::thread::Builder::new().name("midair-pulse".to_owned()).spawn(move || pulse.watch()).map_err(failed)?;
        Ok(Running { host, runtime: Some(runtime), stop, in_flight, ended })
    }
}

impl Running {
    /// How many requests are being answered, up to the last byte of their answers.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Stops listening, lets requests finish until the deadline and what goes on beside them, and says what was left. The host is no longer
    /// ready. Blocks; returns at the deadline even if every worker is stuck in a handler.
    pub fn drain(self, deadline: Duration) -> Left {
        let since = Instant::now();
        self.host.end();
        // The accepting task may be gone already.
        let _ = self.stop.send(true);
        // Nothing is ever sent: this returns when the last connection ended, or late.
        let _ = self.ended.recv_timeout(deadline);
        let left = self.host.settle(deadline.saturating_sub(since.elapsed()));
        Left { requests: self.in_flight(), ..left }
    }
}

/// Workers may be stuck in handlers: nobody waits for them, on whichever thread this is dropped.
impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
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
            // Waited for to the end, so that no beats pile up while the workers are busy.
            loop {
                match beats.recv_timeout(PULSE) {
                    Ok(()) => break,
                    // The runtime ended, and the task with it.
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) if busy => {}
                    Err(RecvTimeoutError::Timeout) => {
                        busy = true;
                        let leases = self.host.status().leases.into_iter();
                        let mut handlers: Vec<String> =
                            leases.map(|lease| format!("{}={} {}", lease.plugin, lease.generation, lease.handler)).collect();
                        handlers.sort_unstable();
                        handlers.dedup();
                        self.host.events().say(Event::WorkersBusy { handlers });
                    }
                }
            }
            if std::mem::take(&mut busy) {
                self.host.events().say(Event::WorkersFree);
            }
            std::thread::park_timeout(PULSE);
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, front: Arc<Front>, mut stopped: watch::Receiver<bool>) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(front.limits.header_timeout);
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a connection that broke at once: the next one may do. Told once in a row.
                if !std::mem::replace(&mut told, true) {
                    front.host.events().say(Event::Warning { message: format!("connections can't be accepted: {error}") });
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        told = false;
        // Answers are small and wait for nothing; a socket that refuses the option is still a socket.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(front.limits.body_timeout));
        let front = Arc::clone(&front);
        let service = hyper::service::service_fn(move |request| {
            let front = Arc::clone(&front);
            async move { Ok::<_, Infallible>(front.answer(request, peer).await) }
        });
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service).with_upgrades();
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            // What a client does to its own connection is no event.
            tokio::select! {
                _ = &mut connection => return,
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        });
    }
    // From here on who connects is refused at once and can go elsewhere; what is there still holds what `drain` waits for.
}

/// What all requests share.
struct Front {
    host: Host,
    limits: Limits,
    in_flight: Arc<AtomicUsize>,
    carrier: Arc<Carrier>,
}

impl Front {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Outgoing> {
        // Made first, so that a request that is given up on the way is counted off too.
        let in_flight = InFlight::of(&self.in_flight);
        let is_head = *request.method() == Method::HEAD;
        let conditions = Conditions::of(request.method(), request.headers());
        let mut answered = self.route(request, peer).await;
        if let Body::File(path) = answered.body() {
            let path = path.clone();
            let (head, _) = answered.into_parts();
            let generation = head.headers.get(&GENERATION).cloned();
            match file::answer(&path, conditions, Response::from_parts(head, ())).await {
                Ok(answer) => return answer.map(|body| Outgoing::file(body, in_flight)),
                Err((status, error)) => {
                    if let Some(error) = error {
                        let message = format!("{}, which a handler answered with, can't be read: {error}", path.display());
                        self.host.events().say(Event::Warning { message });
                    }
                    answered = own(status, if status == StatusCode::NOT_FOUND { "no such file" } else { "internal error" });
                    answered.headers_mut().extend(generation.map(|generation| (GENERATION.clone(), generation)));
                }
            }
        }
        if is_head {
            answered = without_body(answered);
        }
        answered.map(|body| match body {
            Body::Stream(stream) => Outgoing::stream(stream, in_flight),
            Body::Whole(bytes) => Outgoing::whole(bytes, in_flight),
            // Answered above.
            Body::File(_) => Outgoing::whole(Bytes::new(), in_flight),
        })
    }

    async fn route(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Answered {
        if let Some(answered) = self.carrier.answer(&mut request, peer).await {
            return answered;
        }
        let (head, body) = request.into_parts();
        let admitted = match admit(self.host.slot(), &head.method, head.uri.path()) {
            Ok(admitted) => admitted,
            Err(refusal) => return *refusal,
        };
        let generation = if self.limits.generation_header {
            HeaderValue::from_maybe_shared(admitted.generation().label().clone()).ok()
        } else {
            None
        };
        let handler = admitted.handler();
        let terms = Terms {
            limit: handler.and_then(|handler| handler.body_limit).unwrap_or(self.limits.body),
            timeout: self.limits.body_timeout,
            waits_for_leave: head.headers.contains_key(EXPECT),
        };
        let body = if handler.is_some_and(|handler| handler.is_streamed) && !body.is_end_stream() {
            Ok(Asked::InPieces(upload::in_pieces(body, terms)))
        } else {
            upload::gather(body, terms).await.map(Asked::Whole)
        };
        let mut answered = match body {
            Err(refusal) => refusal,
            Ok(body) => {
                let call = Arc::clone(admitted.call());
                let answer = admitted.answer(head, body, Some(peer));
                let answer = within(self.limits.request_timeout, &call, answer).await;
                answer.unwrap_or_else(|text| own(StatusCode::GATEWAY_TIMEOUT, &text))
            }
        };
        if let Some(generation) = generation {
            answered.headers_mut().insert(GENERATION.clone(), generation);
        }
        answered
    }
}
