//! What does a plugin ask of a WebSocket that its host owns?

use abi_stable::StableAbi;

use crate::memory::Span;

/// One operation on a connection or a room. What a kind doesn't need is empty.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct SocketOp {
    /// One of the constants below.
    pub kind: u32,
    /// Bits: the constants below.
    pub flags: u32,
    /// The connection; of `SEND_ALL` one to leave out, or 0.
    pub id: u64,
    /// The close code.
    pub code: u32,
    /// The room, text.
    pub room: Span,
    /// The message, the reason or the state.
    pub bytes: Span,
}

impl SocketOp {
    /// A message to a connection: done when its queue has room for it.
    pub const SEND: u32 = 1;
    /// Ends a connection, after what is queued.
    pub const CLOSE: u32 = 2;
    /// Takes a connection into a room.
    pub const JOIN: u32 = 3;
    /// Takes it out.
    pub const LEAVE: u32 = 4;
    /// A message to all in a room, at once; the row's number says how many get it.
    pub const SEND_ALL: u32 = 5;
    /// How many are in a room: the row's number.
    pub const COUNT: u32 = 6;
    /// A connection's state: a row, or none.
    pub const STATE: u32 = 7;
    /// Replaces a connection's state.
    pub const PUT_STATE: u32 = 8;
    /// The next message of a connection that is received by its handler: a row whose number is one of the flags, or none at the end.
    pub const RECEIVE: u32 = 9;

    /// A flag: the message is text.
    pub const TEXT: u32 = 1;
    /// A flag of `SEND_ALL`: who has no room for the message is left out, not closed.
    pub const SKIP: u32 = 2;

    /// Parameters that an event's request has beside those of its path: no path can name them so.
    pub const ID: &str = ":socket";
    /// One of the words below; nothing when the connection opens. The message or the reason is the body.
    pub const EVENT: &str = ":event";
    /// The event is a message of text.
    pub const EVENT_TEXT: &str = "text";
    /// The event is a message of bytes.
    pub const EVENT_BINARY: &str = "binary";
    /// The event is the end.
    pub const EVENT_CLOSE: &str = "close";
    /// The code of a close.
    pub const CODE: &str = ":code";
}
