//! How is a WebSocket's handler tested without a connection?
//!
//! The connections and rooms of a test: queues without an end, one client that is never slow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use http::StatusCode;
use midair_abi::store::Row;
use midair_abi::{self as abi, Handler, SocketOp, meta};

use super::{World, parts};
use crate::error::{Error, Result};
use crate::glue::operation::block_on;
use crate::handler::frame::{Closed, Message};
use crate::handler::plugin::Reply;
use crate::handler::request::{Request, RequestParts};
use crate::handler::response::{IntoResponse, Response};
use crate::handler::socket::Ask;

/// All connections of a test.
#[derive(Default)]
pub(crate) struct Sockets {
    hall: Mutex<Hall>,
    /// A pinned handler waits for a message, or is over.
    rest: Condvar,
}

#[derive(Default)]
struct Hall {
    last: u64,
    connections: BTreeMap<u64, Connection>,
    rooms: BTreeMap<String, BTreeSet<u64>>,
}

#[derive(Default)]
struct Connection {
    state: Option<Vec<u8>>,
    sent: VecDeque<Message>,
    closed: Option<Closed>,
    /// Of a pinned handler: what it hasn't received yet, and whether it waits for more.
    coming: VecDeque<Message>,
    waits: Option<Waker>,
    is_over: bool,
}

impl Sockets {
    fn hall(&self) -> MutexGuard<'_, Hall> {
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ask(&self, ask: &Ask<'_>) -> Result<Vec<Row>> {
        let number = |number: usize| vec![Row { number: number.try_into().unwrap_or(i64::MAX), ..Row::default() }];
        let message = || {
            let (text, bytes) = (String::from_utf8_lossy(ask.bytes), Bytes::copy_from_slice(ask.bytes));
            if ask.flags & SocketOp::TEXT != 0 { Message::Text(text.into_owned()) } else { Message::Binary(bytes) }
        };
        let mut hall = self.hall();
        let Hall { connections, rooms, .. } = &mut *hall;
        let gone = || Error::new(StatusCode::GONE, "the connection has ended");
        let open = |connection: &&mut Connection| connection.closed.is_none();
        match ask.kind {
            SocketOp::SEND => connections.get_mut(&ask.id).filter(open).ok_or_else(gone)?.sent.push_back(message()),
            SocketOp::CLOSE => {
                if let Some(connection) = connections.get_mut(&ask.id) {
                    let reason = String::from_utf8_lossy(ask.bytes).into_owned();
                    connection.closed.get_or_insert(Closed { code: ask.code, reason });
                    leave(rooms, ask.id);
                }
            }
            SocketOp::JOIN => {
                connections.get_mut(&ask.id).filter(open).ok_or_else(gone)?;
                rooms.entry(ask.room.to_owned()).or_default().insert(ask.id);
            }
            SocketOp::LEAVE => {
                rooms.entry(ask.room.to_owned()).or_default().remove(&ask.id);
            }
            SocketOp::SEND_ALL => {
                let all = rooms.get(ask.room).into_iter().flatten().filter(|id| **id != ask.id);
                let mut sent = 0;
                for id in all {
                    if let Some(connection) = connections.get_mut(id).filter(open) {
                        connection.sent.push_back(message());
                        sent += 1;
                    }
                }
                return Ok(number(sent));
            }
            SocketOp::COUNT => return Ok(number(rooms.get(ask.room).map_or(0, BTreeSet::len))),
            SocketOp::STATE => {
                let state = &connections.get(&ask.id).ok_or_else(gone)?.state;
                return Ok(state.iter().map(|bytes| Row { bytes: bytes.clone(), ..Row::default() }).collect());
            }
            SocketOp::PUT_STATE => connections.get_mut(&ask.id).ok_or_else(gone)?.state = Some(ask.bytes.to_vec()),
            other => return Err(Error::internal(format!("a test doesn't know socket operation {other}"))),
        }
        Ok(Vec::new())
    }

    pub(super) async fn receive(&self, id: u64) -> Vec<Row> {
        poll_fn(|context| {
            let mut hall = self.hall();
            let Some(connection) = hall.connections.get_mut(&id) else { return Poll::Ready(Vec::new()) };
            if let Some(message) = connection.coming.pop_front() {
                let flags = if matches!(message, Message::Text(_)) { SocketOp::TEXT } else { 0 };
                return Poll::Ready(vec![Row { number: flags.into(), bytes: message.bytes().to_vec(), ..Row::default() }]);
            }
            if connection.closed.is_some() {
                return Poll::Ready(Vec::new());
            }
            connection.waits = Some(context.waker().clone());
            self.rest.notify_all();
            Poll::Pending
        })
        .await
    }

    /// Waits until a pinned handler has done what it can.
    fn settle(&self, id: u64) {
        let busy = |hall: &mut Hall| hall.connections.get(&id).is_some_and(|it| !it.is_over && it.waits.is_none());
        drop(self.rest.wait_while(self.hall(), busy));
    }

    fn change<R: Default>(&self, id: u64, change: impl FnOnce(&mut Connection) -> R) -> R {
        self.hall().connections.get_mut(&id).map(change).unwrap_or_default()
    }
}

fn leave(rooms: &mut BTreeMap<String, BTreeSet<u64>>, id: u64) {
    for room in rooms.values_mut() {
        room.remove(&id);
    }
}

/// A client's end of a WebSocket, made by [`App::socket`](super::App::socket). Dropped, it stays open.
pub struct TestSocket {
    world: Arc<World>,
    /// Of the handler that opens, or of the pinned one.
    handler: usize,
    pinned: bool,
    id: u64,
    head: Arc<dyn Fn() -> RequestParts + Send + Sync>,
}

pub(super) fn open(world: &Arc<World>, request: Request) -> Result<TestSocket, Box<Response>> {
    let nothing = || Box::new(StatusCode::NOT_FOUND.into_response());
    let (plugin, _) = world.plugin.get().ok_or_else(nothing)?;
    let begins = |kind| kind == Handler::SOCKET_OPEN || kind == Handler::SOCKET_PINNED;
    let found = plugin.works.iter().enumerate().filter(|(_, work)| begins(work.kind)).find_map(|(place, work)| {
        let (_, path) = work.meta.iter().find(|(name, _)| *name == meta::PATH)?;
        let mut router = matchit::Router::new();
        router.insert(path, ()).unwrap_or_else(|error| panic!("the route {path}: {error}"));
        let found = router.at(request.path()).ok()?;
        Some((place, parts(&request, &found.params)))
    });
    let (handler, parts) = found.ok_or_else(nothing)?;
    let mut parts = parts.map_err(|error| Box::new(error.into_response()))?;
    let id = {
        let mut hall = world.sockets.hall();
        hall.last += 1;
        let id = hall.last;
        hall.connections.insert(id, Connection::default());
        id
    };
    parts.params.push((SocketOp::ID.to_owned(), id.to_string()));
    let head = move || RequestParts {
        method: parts.method.clone(),
        path: parts.path.clone(),
        query: parts.query.clone(),
        params: parts.params.clone(),
        headers: parts.headers.clone(),
        body: Bytes::new(),
        peer: parts.peer,
    };
    let pinned = plugin.works[handler].kind == Handler::SOCKET_PINNED;
    let socket = TestSocket { world: Arc::clone(world), handler, pinned, id, head: Arc::new(head) };
    if pinned {
        let (inside, head) = (Arc::clone(world), Arc::clone(&socket.head));
        std::thread::spawn(move || {
            let answer = call(&inside, handler, head());
            let code = if answer.status().is_server_error() { 1011 } else { 1000 };
            inside.sockets.change(id, |connection| {
                connection.is_over = true;
                connection.closed.get_or_insert(Closed { code, reason: String::new() });
            });
            inside.sockets.rest.notify_all();
        });
        world.sockets.settle(id);
        return Ok(socket);
    }
    let answer = call(world, handler, (socket.head)());
    if answer.status().is_success() {
        return Ok(socket);
    }
    world.sockets.hall().connections.remove(&id);
    Err(Box::new(answer))
}

fn call(world: &Arc<World>, handler: usize, parts: RequestParts) -> Response {
    let Some((plugin, _)) = world.plugin.get() else { return StatusCode::NOT_FOUND.into_response() };
    let request = Request::from_wire(abi::Request::new(parts));
    match plugin.works[handler].handler.handle(request, world.ctx()) {
        Reply::Ready(response) => response,
        Reply::Later(future) => Response::from_outcome(block_on(future)).unwrap_or_else(IntoResponse::into_response),
    }
}

impl TestSocket {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Sends a message and waits until it is handled; a pinned handler, until it waits for the next one or is over.
    ///
    /// # Panics
    ///
    /// As the handler does; if it fails, with its error.
    #[track_caller]
    pub fn send(&self, message: impl Into<Message>) {
        let message = message.into();
        if self.pinned {
            let waker = self.world.sockets.change(self.id, |connection| {
                connection.coming.push_back(message);
                connection.waits.take()
            });
            waker.into_iter().for_each(Waker::wake);
            return self.world.sockets.settle(self.id);
        }
        let event = if matches!(message, Message::Text(_)) { SocketOp::EVENT_TEXT } else { SocketOp::EVENT_BINARY };
        self.event(1, &[(SocketOp::EVENT, event)], Bytes::copy_from_slice(message.bytes()));
    }

    /// What was sent to it since this was asked last.
    #[must_use]
    pub fn received(&self) -> Vec<Message> {
        self.world.sockets.change(self.id, |connection| std::mem::take(&mut connection.sent)).into()
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        self.world.sockets.change(self.id, |connection| connection.closed.clone())
    }

    /// Ends it from the client's side, and waits until that is handled.
    ///
    /// # Panics
    ///
    /// As the handler does; if it fails, with its error.
    #[track_caller]
    pub fn close(self, code: u16, reason: &str) {
        let (waker, closed) = self.world.sockets.change(self.id, |connection| {
            let closed = connection.closed.get_or_insert(Closed { code, reason: reason.to_owned() }).clone();
            (connection.waits.take(), Some(closed))
        });
        waker.into_iter().for_each(Waker::wake);
        leave(&mut self.world.sockets.hall().rooms, self.id);
        if self.pinned {
            self.world.sockets.settle(self.id);
        } else if let Some(Closed { code, reason }) = closed {
            self.event(2, &[(SocketOp::EVENT, SocketOp::EVENT_CLOSE), (SocketOp::CODE, &code.to_string())], reason.into());
        }
        self.world.sockets.hall().connections.remove(&self.id);
    }

    #[track_caller]
    fn event(&self, after_open: usize, params: &[(&str, &str)], body: Bytes) {
        let mut parts = (self.head)();
        parts.params.extend(params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        parts.body = body;
        let answer = call(&self.world, self.handler + after_open, parts);
        assert!(!answer.status().is_server_error(), "the handler failed: {}", answer.text());
    }
}

impl fmt::Debug for TestSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestSocket").field("id", &self.id).finish_non_exhaustive()
    }
}
