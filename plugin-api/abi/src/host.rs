//! What does the host do for a plugin?

use std::ffi::c_void;

use abi_stable::StableAbi;

use crate::memory::{Address, Many, Span};
use crate::outcome::Outcome;
use crate::request::Request;
use crate::socket::SocketOp;
use crate::state::Op;

/// A call's way to the host: whose call it is, and the functions that serve it.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Context {
    /// What the functions get. Counted: made by `context_clone`, freed by `context_release`.
    pub data: *const c_void,
    /// The host's functions; the host is never unmapped.
    pub host: HostRef,
}

/// Who is asking, as the host sees it.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Identity {
    /// The plugin's name; lives as long as the context.
    pub plugin: Span,
    /// The generation's number.
    pub generation: u64,
    /// Bits: the constants below.
    pub flags: u32,
}

impl Identity {
    /// The host is `midair dev`.
    pub const DEV: u32 = 1;
    /// The generation isn't published yet.
    pub const CANDIDATE: u32 = 2;
    /// The host is a probe.
    pub const PROBE: u32 = 4;
    /// The generation isn't committed yet.
    pub const TRIAL: u32 = 8;
}

/// What the host does for a plugin. Fields may be appended at the end.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostRef)))]
#[sabi(missing_field(panic))]
pub struct Host {
    /// One more holder of the context.
    pub context_clone: unsafe extern "C" fn(context: *const c_void) -> *const c_void,
    /// One holder less.
    pub context_release: unsafe extern "C" fn(context: *const c_void),
    /// Whose context it is.
    pub identity: unsafe extern "C" fn(context: *const c_void) -> Identity,
    /// A line for the host's log; level 1 (error) to 5 (trace), text.
    pub log: unsafe extern "C" fn(context: *const c_void, level: u32, message: Span),
    /// Operations on the state, all or nothing.
    pub state: unsafe extern "C" fn(context: *const c_void, ops: Many<Op>) -> Outcome,
    /// Done after so many nanoseconds.
    pub sleep: unsafe extern "C" fn(context: *const c_void, nanoseconds: u64) -> Outcome,
    /// Another route of the host, in the snapshot of this context.
    #[sabi(last_prefix_field)]
    pub call: unsafe extern "C" fn(context: *const c_void, request: Request) -> Outcome,
    /// A context of the same generation that belongs to no call; released as any other.
    pub context_detach: unsafe extern "C" fn(context: *const c_void) -> *const c_void,
    /// Polls a future, which is given away as a pending outcome, beside all calls and under this context; `name` is text. The number of the
    /// task, or 0 if the future was dropped instead.
    pub spawn: unsafe extern "C" fn(context: *const c_void, name: Span, flags: u32, future: Outcome) -> u64,
    /// Has a task's future dropped, soon and elsewhere. One that is over is none.
    pub cancel: unsafe extern "C" fn(context: *const c_void, task: u64),
    /// Done when new requests reach the context's generation no more.
    pub retiring: unsafe extern "C" fn(context: *const c_void) -> Outcome,
    /// Hands a message to all who take `topic`, which is text. Done when each has it in its queue; `flags` are the constants below.
    pub emit: unsafe extern "C" fn(context: *const c_void, topic: Span, message: Span, flags: u32) -> Outcome,
    /// Calls what the host offers by a name, text. The answer is a response's body.
    pub service: unsafe extern "C" fn(context: *const c_void, name: Span, request: Span) -> Outcome,
    /// The plugin's config as `Root::configure` made it, null without one; it lives as long as the context.
    #[sabi(missing_field(option))]
    pub config: unsafe extern "C" fn(context: *const c_void) -> Address,
    /// An operation on a WebSocket or a room of the context's plugin.
    pub socket: unsafe extern "C" fn(context: *const c_void, op: SocketOp) -> Outcome,
}

impl Host {
    /// A flag of `spawn`: the task may be dropped some time after its generation was replaced.
    pub const UNTIL_RETIRE: u32 = 1;
    /// A flag of `emit`: an error, and nothing emitted, where it would have to wait.
    pub const AT_ONCE: u32 = 1;
}
