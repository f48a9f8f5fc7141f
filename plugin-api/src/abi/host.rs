//! What does the host do for a plugin?

use std::ffi::c_void;

use abi_stable::StableAbi;

use super::memory::{Many, Span};
use super::outcome::Outcome;
use super::request::Request;
use super::state::Op;

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
}
