//! How do a WebSocket's messages reach a handler, and its answers the client?
//!
//! A request to upgrade is admitted as any other and decided by its route's `open`. From then on one task of the host's carries the
//! connection: what comes is admitted message by message to what serves at that moment, one at a time; what is queued goes out beside
//! that. The next message is read when the last was taken, so a client that sends faster than its handlers work waits in its own send.
//!
//! hyper gives the connection away with the answer 101, and its graceful end knows nothing of it any more: the task ends it when the host
//! does, and is waited for by what it holds. An idle connection has nothing that could time out below it: a write has its limit only while
//! it waits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE as UPGRADE_HEADER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use midair_abi::SocketOp;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::limit::within;
pub use super::ws_io::SocketLimits;
use super::ws_io::carry;
use crate::call::body::Body;
use crate::call::invocation::{Answer, Call};
use crate::call::refusal::decode;
use crate::call::request::RequestParts;
use crate::call::respond::{Admitted, Answered, Asked, own};
use crate::live::lease::Lease;
use crate::live::route::{Found, UPGRADE};
#[cfg(midair_seeded)]
use crate::live::slot::Slot;
use crate::live::snapshot::{Snapshot, Target};
use crate::mutation::{self, Bug};
use crate::plugin::exports::{Calls, HandlerInfo, Part};
use crate::resources::sockets::{Bounds, Cause, Connection, End, Entry};
use crate::swap::Host;

/// What all WebSockets share.
pub(super) struct Carrier {
    pub(super) host: Host,
    pub(super) limits: SocketLimits,
    /// How long an event may take.
    pub(super) request_timeout: Option<Duration>,
    /// Calls in flight, events among them.
    pub(super) in_flight: Arc<AtomicUsize>,
    pub(super) stopped: watch::Receiver<bool>,
    /// Held as long as there is a connection: that is what the host's end waits for.
    pub(super) _alive: Sender<Infallible>,
}

/// What every event of a connection tells of the request that it began as.
struct Head {
    path: String,
    query: String,
    headers: HeaderMap,
    peer: SocketAddr,
    /// What served when it began, for a bug that stays there.
    #[cfg(midair_seeded)]
    opened: Slot,
}

/// What a connection knows of its route.
#[derive(Default)]
struct Place {
    /// The epoch in which it was looked for last; 0 for never.
    epoch: u64,
    /// Whether it is gone and may come back, as the code that doesn't have it is on trial.
    is_awaited: bool,
}

/// A path's parameters by name, decoded.
type Params = Vec<(String, String)>;

/// A handler, admitted, with the parameters of its route.
type Reached = (Arc<Call>, Params);

/// A call in flight that is no request.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(in_flight: &'a AtomicUsize) -> Self {
        in_flight.fetch_add(1, Ordering::Relaxed);
        Self(in_flight)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Carrier {
    /// The answer to a request to upgrade; `None` if it is a request as any other, or no WebSocket is taken there.
    pub(super) async fn answer(self: &Arc<Self>, request: &mut Request<Incoming>, peer: SocketAddr) -> Option<Answered> {
        if *request.method() != Method::GET || !has_word(request.headers(), &UPGRADE_HEADER, "websocket") {
            return None;
        }
        let lease = self.host.slot().admit();
        let Found::Handler(target, params) = lease.snapshot().find(UPGRADE, request.uri().path()) else { return None };
        let headers = request.headers();
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| has_word(headers, &CONNECTION, "upgrade"));
        let Some(accept) = key.map(|key| derive_accept_key(key.as_bytes())) else {
            return Some(own(StatusCode::BAD_REQUEST, "a request to upgrade has `connection: upgrade` and `sec-websocket-key`"));
        };
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            let mut answered = own(StatusCode::UPGRADE_REQUIRED, "WebSockets are taken in version 13 only");
            answered.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return Some(answered);
        }
        let Some(params) = decode(params) else { return Some(own(StatusCode::BAD_REQUEST, "the path isn't UTF-8")) };
        let call = Call::admit(lease, target);
        let generation = call.generation();
        let SocketLimits { queue: messages, queue_bytes: bytes, .. } = self.limits;
        let info = generation.handlers().get(target.handler)?;
        let entry = self.host.sockets().open(generation.plugin(), &info.path, Bounds { messages, bytes });
        let is_pinned = info.calls == Calls::Socket(Part::Pinned);

        let upgraded = hyper::upgrade::on(&mut *request);
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let head = Head {
            path,
            query,
            headers: request.headers().clone(),
            peer,
            #[cfg(midair_seeded)]
            opened: Slot::new(self.host.slot().now()),
        };
        let (mut answered, pinned) = if is_pinned {
            (own(StatusCode::OK, ""), Some((call, params)))
        } else {
            let admitted = Admitted::of(Arc::clone(&call), with_id(params, entry.connection().id));
            let answer = admitted.answer(parts_of(request), Asked::Whole(Bytes::new()), Some(peer));
            let answer = within(self.request_timeout, &call, answer).await;
            (answer.unwrap_or_else(|text| own(StatusCode::GATEWAY_TIMEOUT, &text)), None)
        };
        if !answered.status().is_success() {
            return Some(answered);
        }
        let mut accepted = own(StatusCode::SWITCHING_PROTOCOLS, "");
        std::mem::swap(accepted.headers_mut(), answered.headers_mut());
        let headers = accepted.headers_mut();
        headers.remove(http::header::CONTENT_TYPE);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE_HEADER, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).ok()?);
        tokio::spawn(Arc::clone(self).serve(upgraded, entry, head, pinned));
        Some(accepted.map(|_| Body::Whole(Bytes::new())))
    }

    /// The whole life of a connection that was accepted.
    async fn serve(self: Arc<Self>, upgraded: OnUpgrade, mut entry: Entry, head: Head, pinned: Option<Reached>) {
        entry.accepted();
        let connection = &**entry.connection();
        let talk = async {
            match upgraded.await {
                Ok(upgraded) => carry(TokioIo::new(upgraded), connection, &self.limits).await,
                Err(_) => connection.end(Cause::Broken, 1006, ""),
            }
            // Also where there was nothing to talk over.
            connection.over();
        };
        let handle = async {
            match pinned {
                Some((call, params)) => self.pin(connection, &head, call, params).await,
                None => self.handle(connection, &head).await,
            }
        };
        let mut stopped = self.stopped.clone();
        let stop = async {
            // Without anybody who could say so the host ends as well.
            let _ = stopped.wait_for(|stopped| *stopped).await;
            connection.end(Cause::Ending, 1001, "the host ends");
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = async { tokio::join!(talk, handle) } => {}
            () = stop => {}
        }
    }

    /// Hands messages to what serves, and the end.
    async fn handle(&self, connection: &Connection, head: &Head) {
        let sockets = self.host.sockets();
        let mut route = Place::default();
        loop {
            let changed = sockets.changed();
            self.look(connection, head, &mut route);
            let message = tokio::select! {
                biased;
                message = connection.next() => message,
                () = changed => continue,
            };
            let Some(message) = message else { break };
            if connection.ended().is_some_and(|end| !matches!(end.cause, Cause::Client | Cause::Broken | Cause::Ending)) {
                continue;
            }
            let event = if message.is_text { SocketOp::EVENT_TEXT } else { SocketOp::EVENT_BINARY };
            let params = [(SocketOp::EVENT, event)];
            let mut event = pin!(self.event(connection, head, Part::Message, &params, message.bytes.clone()));
            // A route that goes closes the connection now, and this event ends by itself as a request does.
            let is_handled = loop {
                let changed = sockets.changed();
                self.look(connection, head, &mut route);
                tokio::select! {
                    biased;
                    is_handled = &mut event => break is_handled,
                    () = changed => {}
                }
            };
            if !is_handled && connection.ended().is_none() {
                connection.take_back(message);
            }
        }
        sockets.leave_all(connection);
        if let Some(End { cause, code, reason }) = connection.ended().filter(|end| end.cause != Cause::Removed) {
            // Of a silent client nobody knows more than that.
            let code = if cause == Cause::Silent { 1006 } else { code };
            let params = [(SocketOp::EVENT, SocketOp::EVENT_CLOSE), (SocketOp::CODE, &*code.to_string())];
            self.event(connection, head, Part::Close, &params, reason.into()).await;
        }
    }

    /// Looks for the connection's route if something else serves since the last look. Where it is gone the connection is ended, or, if the code
    /// that has it may come back, waits for that.
    fn look(&self, connection: &Connection, head: &Head, route: &mut Place) {
        if self.host.slot().now().epoch() == route.epoch && !route.is_awaited {
            return;
        }
        let lease = self.host.slot().admit();
        let serves = lease.snapshot().generation(&connection.plugin).cloned();
        let before = std::mem::replace(&mut route.epoch, lease.snapshot().epoch());
        let is_gone =
            before > 0 && mutation::is(Bug::SocketsEndWithSwap) || Self::find(lease, connection, head, Part::Open).is_none();
        let has_it = |code: &HandlerInfo| code.calls == Calls::Socket(Part::Open) && code.path == connection.route;
        let may_come = || serves.and_then(|serves| serves.before()).is_some_and(|before| before.handlers().iter().any(has_it));
        route.is_awaited = is_gone && may_come();
        connection.wait(route.is_awaited);
        if is_gone && !route.is_awaited {
            connection.end(Cause::Removed, 1012, "nothing answers here any more");
        }
    }

    /// Runs a handler that receives for itself, and ends the connection with it.
    async fn pin(&self, connection: &Connection, head: &Head, call: Arc<Call>, params: Params) {
        let _counted = Counted::new(&self.in_flight);
        let (code, reason) = match call.invoke(head.event(with_id(params, connection.id), Bytes::new()), None).await {
            Answer::Response(_) => (1000, ""),
            // Its text is the operator's.
            Answer::Error { .. } | Answer::Panic(_) => (1011, "the handler failed"),
        };
        connection.end(Cause::Plugin, code, reason);
        // Nobody receives what still comes.
        while connection.next().await.is_some() {}
    }

    /// One event, if anybody is there to take it; whether somebody was. What went wrong is told and counted by the call; one that takes too
    /// long is dropped, and the connection has its next event as after one that failed.
    async fn event(&self, connection: &Connection, head: &Head, part: Part, more: &[(&str, &str)], body: Bytes) -> bool {
        let Some((call, params)) = Self::find(self.host.slot().admit(), connection, head, part) else { return false };
        let _counted = Counted::new(&self.in_flight);
        let mut params = with_id(params, connection.id);
        params.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let work = Arc::clone(&call).invoke(head.event(params, body), None);
        drop(within(self.request_timeout, &call, work).await);
        true
    }

    /// The handler for a part of this connection's events in what is admitted to, and the path's parameters.
    fn find(lease: Lease<Snapshot>, connection: &Connection, head: &Head, part: Part) -> Option<Reached> {
        #[cfg(midair_seeded)]
        let lease = if mutation::is(Bug::SocketStaysOnCode) { head.opened.admit() } else { lease };
        let snapshot = lease.snapshot();
        let Found::Handler(Target { generation, handler }, params) = snapshot.find(UPGRADE, &head.path) else { return None };
        let code = snapshot.generations().get(generation).filter(|code| code.plugin() == connection.plugin)?;
        let opens = code.handlers().get(handler).filter(|info| info.calls == Calls::Socket(Part::Open))?;
        // Its parts follow it.
        let fits =
            |place: &usize| code.handlers()[*place].calls == Calls::Socket(part) && code.handlers()[*place].path == opens.path;
        let handler = (handler..code.handlers().len()).find(fits)?;
        let params = decode(params)?;
        Some((Call::admit(lease, Target { generation, handler }), params))
    }
}

impl Head {
    fn event(&self, params: Params, body: Bytes) -> RequestParts {
        let (path, query, headers) = (self.path.clone(), self.query.clone(), self.headers.clone());
        RequestParts { method: Method::GET, path, query, params, headers, body, peer: Some(self.peer) }
    }
}

fn with_id(mut params: Params, id: u64) -> Params {
    params.push((SocketOp::ID.to_owned(), id.to_string()));
    params
}

/// Whether a header that is a list has this word.
fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
}

/// The head of a request whose body nobody reads.
fn parts_of(request: &mut Request<Incoming>) -> request::Parts {
    let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
    let mut parts = Request::new(()).into_parts().0;
    (parts.method, parts.uri, parts.headers) = (method, uri, headers);
    parts
}
