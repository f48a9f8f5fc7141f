//! How does a plugin talk over a WebSocket?
//!
//! The host owns the connection, what waits to be sent, the rooms and each connection's state. The plugin has handlers, which are called as
//! those of requests are: whatever code serves when a message comes handles it.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use bytes::Bytes;
use midair_abi::store::Row;
use midair_abi::{Handler, SocketOp, Span, meta};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::glue::operation::Operation;
use crate::handler::frame::{Closed, Message};
use crate::handler::plugin::{Handle, IntoReply, Plugin, Reply, Work};
use crate::handler::request::Request;
use crate::handler::response::IntoResponse;
use crate::host::ctx::Ctx;
use crate::host::state;

/// What happens on a WebSocket route; see [`Plugin::socket`]. Each part may be left out.
///
/// Where the operator gives requests a time (`--request-timeout`), each part has it for each event, what it waits for included, such as a client
/// that reads slowly. One that takes longer is dropped where it waits, told and counted, and the connection stays.
#[derive(Default)]
#[must_use = "a socket does nothing before it is given to `Plugin::socket`"]
pub struct Socket {
    open: Part,
    message: Part,
    close: Part,
}

/// A handler with its name.
type Part = Option<(&'static str, Box<dyn Handle>)>;

impl Socket {
    /// Accepts every connection, passes over every message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides whether a connection is accepted: by any answer of 2xx, whose headers go along, such as `sec-websocket-protocol`. Any other
    /// answer is what the client gets instead, such as `StatusCode::UNAUTHORIZED` or an error.
    ///
    /// The connection can be sent to and join rooms already; what is sent waits until it is accepted. One that takes too long is answered 504.
    pub fn open<R: IntoReply<M>, M, F>(mut self, handler: F) -> Self
    where
        F: Fn(Conn, Ctx) -> R + Send + Sync + 'static,
    {
        let handler = move |request, ctx: Ctx| handler(Conn::of(request, &ctx), ctx).into_reply();
        self.open = Some((type_name::<F>(), Box::new(handler)));
        self
    }

    /// Takes a message. Those of a connection come one at a time and in order: the next when this one is handled. What it returns goes
    /// nowhere but into the counts; an error of 500 and above, a panic, or one that takes too long, is told and counted, and the connection
    /// stays: what was sent by then was sent, and the next message follows.
    pub fn message<R: IntoReply<M>, M, F>(mut self, handler: F) -> Self
    where
        F: Fn(Conn, Message, Ctx) -> R + Send + Sync + 'static,
    {
        let handler = move |request: Request, ctx: Ctx| {
            let message = Message::of(&request);
            handler(Conn::of(request, &ctx), message, ctx).into_reply()
        };
        self.message = Some((type_name::<F>(), Box::new(handler)));
        self
    }

    /// Hears of a connection's end, whoever ended it, once and after its last message. What it sends goes nowhere; the connection's state
    /// is still there. A connection whose route is gone has nobody to hear of it.
    pub fn close<R: IntoReply<M>, M, F>(mut self, handler: F) -> Self
    where
        F: Fn(Conn, Closed, Ctx) -> R + Send + Sync + 'static,
    {
        let handler = move |request: Request, ctx: Ctx| {
            let closed = Closed::of(&request);
            handler(Conn::of(request, &ctx), closed, ctx).into_reply()
        };
        self.close = Some((type_name::<F>(), Box::new(handler)));
        self
    }
}

impl Plugin {
    /// Takes WebSockets on `path`, written as for [`get`](Self::get); a plain GET is answered there too, if a route says so, else with 426.
    ///
    /// Connections live in the host, through swaps. Each event is admitted as a request is, and handled by the code that serves at that
    /// moment; a rollback gives them back to the older code. Newer code that doesn't have the route closes them with 1012, also while an event
    /// of theirs is handled: that one ends by itself, as a request does, and what it sends goes nowhere. While that code is on trial, and
    /// code that has the route would come back, they wait for it, with what their clients send.
    ///
    /// ```
    /// use midair_plugin::{Conn, Ctx, Message, Plugin, Result, Socket, StatusCode};
    ///
    /// async fn open(conn: Conn, _ctx: Ctx) -> Result<StatusCode> {
    ///     if conn.request().header("authorization").is_none() {
    ///         return Ok(StatusCode::UNAUTHORIZED);
    ///     }
    ///     conn.join(&conn.request().param::<String>("room")?).await?;
    ///     Ok(StatusCode::OK)
    /// }
    ///
    /// async fn message(conn: Conn, message: Message, ctx: Ctx) -> Result<()> {
    ///     let seen = conn.state::<u64>().get().await?.unwrap_or(0) + 1;
    ///     conn.state::<u64>().put(&seen).await?;
    ///     ctx.room(&conn.request().param::<String>("room")?).except(conn.id()).send(message).await?;
    ///     conn.send(format!("{seen} so far")).await
    /// }
    ///
    /// let plugin = Plugin::new().socket("/chat/{room}", Socket::new().open(open).message(message));
    /// ```
    pub fn socket(mut self, path: &str, socket: Socket) -> Self {
        let Socket { open, message, close } = socket;
        let parts = [(Handler::SOCKET_OPEN, open), (Handler::SOCKET_MESSAGE, message), (Handler::SOCKET_CLOSE, close)];
        self.works.extend(parts.into_iter().map(|(kind, part)| {
            let (name, handler) = part.unwrap_or_else(|| ("(nothing)", Box::new(nothing)));
            Work { kind, name: name.to_owned(), meta: vec![(meta::PATH, path.to_owned())], handler }
        }));
        self
    }

    /// Takes WebSockets on `path`, each by one future that stays on the code to which it was admitted, and holds it as a request in flight
    /// does: `midair generations` names it. The connection is accepted before it runs, and ends with it: 1000, or 1011 if it failed. It may take
    /// as long as it likes, whatever time requests have.
    ///
    /// ```
    /// # use midair_plugin::{Ctx, Pinned, Plugin, Result};
    /// async fn echo(socket: Pinned, _ctx: Ctx) -> Result<()> {
    ///     while let Some(message) = socket.recv().await? {
    ///         socket.send(message).await?;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let plugin = Plugin::new().socket_pinned("/stream", echo);
    /// ```
    pub fn socket_pinned<R: IntoReply<M>, M, F>(self, path: &str, handler: F) -> Self
    where
        F: Fn(Pinned, Ctx) -> R + Send + Sync + 'static,
    {
        let more = vec![(meta::PATH, path.to_owned())];
        self.work(Handler::SOCKET_PINNED, type_name::<F>(), more, move |request, ctx| handler(Pinned(Conn::of(request, &ctx)), ctx))
    }
}

fn nothing(_: Request, _: Ctx) -> Reply {
    Reply::Ready(().into_response())
}

/// A connection with the request that it began as. All of [`ConnRef`] works on it.
pub struct Conn {
    request: Request,
    connection: ConnRef,
}

impl Conn {
    fn of(request: Request, ctx: &Ctx) -> Self {
        let id = request.hidden(SocketOp::ID).and_then(|id| id.parse().ok()).unwrap_or_default();
        Self { request, connection: ConnRef { ctx: ctx.clone(), id } }
    }

    /// The request to upgrade: path, query, headers, parameters (those of the route as the code that serves has it) and peer. It has no
    /// body of its own.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }
}

impl Deref for Conn {
    type Target = ConnRef;

    fn deref(&self) -> &ConnRef {
        &self.connection
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.id, self.request)
    }
}

/// A connection that its handler receives from; see [`Plugin::socket_pinned`]. All of [`Conn`] works on it.
#[derive(Debug)]
pub struct Pinned(Conn);

impl Pinned {
    /// The next message; `None` when the connection has ended.
    ///
    /// # Errors
    ///
    /// None so far but a fault of the host.
    pub fn recv(&self) -> Operation<impl Future<Output = Result<Option<Message>>> + Send + 'static> {
        let ask = self.ask(SocketOp::RECEIVE);
        Operation::new(async move { Ok(ask.done().await?.pop().map(Message::received)) })
    }
}

impl Deref for Pinned {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

/// A connection of this plugin, by its number; made by [`Ctx::socket`].
#[derive(Clone)]
pub struct ConnRef {
    ctx: Ctx,
    id: u64,
}

impl ConnRef {
    /// Its number, unique within a run of the host.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Sends a message: done when the connection's queue has taken it. While the queue is full it waits for the client to read; one that
    /// reads nothing for as long as a body may take (`--body-timeout`, 30 s) is closed.
    ///
    /// # Errors
    ///
    /// 410 if the connection has ended, which counts as no failure of the code.
    pub fn send(&self, message: impl Into<Message>) -> Operation<impl Future<Output = Result<()>> + Send + 'static> {
        let ask = self.ask(SocketOp::SEND).with(message.into());
        Operation::new(async move { ask.done().await.map(drop) })
    }

    /// Ends the connection, after what is queued. Of messages that come meanwhile none is handled. A connection that has ended stays so.
    ///
    /// # Errors
    ///
    /// None so far but a fault of the host.
    pub fn close(&self, code: u16, reason: &str) -> Operation<impl Future<Output = Result<()>> + Send + 'static> {
        let mut ask = self.ask(SocketOp::CLOSE).with(reason.into());
        ask.code = code;
        Operation::new(async move { ask.done().await.map(drop) })
    }

    /// Takes it into a room of this plugin, which begins to be by that and ends with the last one in it.
    ///
    /// # Errors
    ///
    /// 410 if the connection has ended, 500 if it is in 1,000 rooms already.
    pub fn join(&self, room: &str) -> Operation<impl Future<Output = Result<()>> + Send + 'static> {
        let ask = self.ask(SocketOp::JOIN).of(room);
        Operation::new(async move { ask.done().await.map(drop) })
    }

    /// Takes it out of a room. It leaves all of them when it ends.
    ///
    /// # Errors
    ///
    /// None so far but a fault of the host.
    pub fn leave(&self, room: &str) -> Operation<impl Future<Output = Result<()>> + Send + 'static> {
        let ask = self.ask(SocketOp::LEAVE).of(room);
        Operation::new(async move { ask.done().await.map(drop) })
    }

    /// Its state: one value that the host holds as long as the connection, as MessagePack with named fields.
    ///
    /// Unlike a table's it has no schema, no migration, and isn't tried before newer code is published: a field that was added wants
    /// `#[serde(default)]`. Code that can't read what older code left fails at its events, which counts against it while it is on trial.
    #[must_use]
    pub fn state<T: Serialize + DeserializeOwned>(&self) -> State<T> {
        State { connection: self.clone(), of: PhantomData }
    }

    fn ask(&self, kind: u32) -> Asking {
        Asking { id: self.id, ..Asking::new(&self.ctx, kind) }
    }
}

impl fmt::Debug for ConnRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.id)
    }
}

/// A connection's state; see [`ConnRef::state`].
pub struct State<T> {
    connection: ConnRef,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> State<T> {
    /// The value, if one was put.
    ///
    /// # Errors
    ///
    /// 410 if the connection is gone; 500 if what is there can't be read as a `T`, with the path within it and what was expected.
    pub fn get(&self) -> Operation<impl Future<Output = Result<Option<T>>> + Send + 'static> {
        let ask = self.connection.ask(SocketOp::STATE);
        Operation::new(async move {
            let row = ask.done().await?.pop();
            row.map(|row| state::decode(&row.bytes).map_err(|misfit| Error::internal(format!("a connection's state {misfit}"))))
                .transpose()
        })
    }

    /// Replaces the value.
    ///
    /// # Errors
    ///
    /// 410 if the connection is gone; 500 if the value can't be written.
    pub fn put(&self, value: &T) -> Operation<impl Future<Output = Result<()>> + Send + 'static> {
        let bytes = state::encode(value);
        let ask = self.connection.ask(SocketOp::PUT_STATE);
        Operation::new(async move { ask.with(bytes?.into()).done().await.map(drop) })
    }
}

/// All connections of this plugin that joined it; made by [`Ctx::room`].
#[derive(Clone)]
#[must_use = "a room does nothing before something is asked of it"]
pub struct Room {
    ctx: Ctx,
    name: String,
    except: u64,
    flags: u32,
}

impl Room {
    /// Leaves this connection out.
    pub fn except(mut self, id: u64) -> Self {
        self.except = id;
        self
    }

    /// Leaves out who has no room for the message in its queue, instead of closing it.
    pub fn skip_slow(mut self) -> Self {
        self.flags |= SocketOp::SKIP;
        self
    }

    /// Sends a message to all that are in it, and says to how many. It waits for none of them: a connection whose queue is full is closed
    /// with 1013 (try again later), so that no client misses a message without knowing it, and is counted; see
    /// [`skip_slow`](Self::skip_slow).
    ///
    /// # Errors
    ///
    /// In `init`, where nothing may be sent yet.
    pub fn send(&self, message: impl Into<Message>) -> Operation<impl Future<Output = Result<usize>> + Send + 'static> {
        let mut ask = Asking::new(&self.ctx, SocketOp::SEND_ALL).of(&self.name).with(message.into());
        ask.flags |= self.flags;
        ask.id = self.except;
        Operation::new(async move { ask.number().await })
    }

    /// How many are in it.
    ///
    /// # Errors
    ///
    /// None so far but a fault of the host.
    pub fn len(&self) -> Operation<impl Future<Output = Result<usize>> + Send + 'static> {
        let ask = Asking::new(&self.ctx, SocketOp::COUNT).of(&self.name);
        Operation::new(async move { ask.number().await })
    }
}

impl Ctx {
    /// The connection of this plugin with this number, from any handler; see [`ConnRef::id`]. What is asked of one that has ended says so.
    #[must_use]
    pub fn socket(&self, id: u64) -> ConnRef {
        ConnRef { ctx: self.clone(), id }
    }

    /// A room of this plugin. Rooms live in the host, as their connections do.
    pub fn room(&self, name: &str) -> Room {
        Room { ctx: self.clone(), name: name.to_owned(), except: 0, flags: 0 }
    }
}

/// An operation with what it needs.
pub(crate) struct Ask<'a> {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) id: u64,
    pub(crate) code: u16,
    pub(crate) room: &'a str,
    pub(crate) bytes: &'a [u8],
}

impl Ask<'_> {
    /// It as it crosses; whoever calls keeps it meanwhile.
    pub(crate) fn op(&self) -> SocketOp {
        let Self { kind, flags, id, code, room, bytes } = *self;
        SocketOp { kind, flags, id, code: code.into(), room: Span::of(room.as_bytes()), bytes: Span::of(bytes) }
    }
}

/// The same, owned.
struct Asking {
    ctx: Ctx,
    kind: u32,
    flags: u32,
    id: u64,
    code: u16,
    room: String,
    message: Message,
}

impl Asking {
    fn new(ctx: &Ctx, kind: u32) -> Self {
        let (room, message) = (String::new(), Message::Binary(Bytes::new()));
        Self { ctx: ctx.clone(), kind, flags: 0, id: 0, code: 0, room, message }
    }

    fn with(mut self, message: Message) -> Self {
        self.flags |= if message.is_text() { SocketOp::TEXT } else { 0 };
        self.message = message;
        self
    }

    fn of(mut self, room: &str) -> Self {
        room.clone_into(&mut self.room);
        self
    }

    async fn done(self) -> Result<Vec<Row>> {
        let Self { ctx, kind, flags, id, code, room, message } = self;
        let ask = Ask { kind, flags, id, code, room: &room, bytes: message.bytes() };
        ctx.0.socket(&ask).await
    }

    async fn number(self) -> Result<usize> {
        let number = self.done().await?.first().map_or(0, |row| row.number);
        Ok(usize::try_from(number).unwrap_or_default())
    }
}
