//! What does a plugin say while it runs?
//!
//! A callsite is named once; from then on its host-side address stands for it. Values are numbers and places in one text, so that an event
//! is two spans and nothing of it is owned by anybody.

use std::ffi::c_void;

use abi_stable::StableAbi;

use crate::memory::{Address, Many, Span};

/// A place in the plugin's source that says something.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Callsite {
    /// One of the constants below.
    pub kind: u32,
    /// 1 (error) to 5 (trace).
    pub level: u32,
    /// Its line; 0 if that isn't known.
    pub line: u32,
    /// Its name, text.
    pub name: Span,
    /// What filters go by, text.
    pub target: Span,
    /// Its source file, text; empty if that isn't known.
    pub file: Span,
    /// Its module, text; empty if that isn't known.
    pub module: Span,
    /// The names of its fields, text each.
    pub fields: Many<Span>,
}

impl Callsite {
    /// Says that something happened.
    pub const EVENT: u32 = 1;
    /// Opens a span.
    pub const SPAN: u32 = 2;
}

/// A callsite as the host knows it.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Site {
    /// Stands for it from now on, and for good.
    pub address: Address,
    /// One of the constants below.
    pub interest: u32,
}

impl Site {
    /// Nobody wants what it says.
    pub const NEVER: u32 = 0;
    /// The host is to be asked each time.
    pub const SOMETIMES: u32 = 1;
    /// Whatever it says is wanted.
    pub const ALWAYS: u32 = 2;
}

/// The value of a field.
#[repr(C)]
#[derive(Clone, Copy, Default, StableAbi)]
pub struct Value {
    /// The field's place in its callsite.
    pub field: u32,
    /// One of the constants below.
    pub kind: u32,
    /// The number, or where the text begins.
    pub bits: u64,
    /// How long the text is.
    pub len: u64,
}

impl Value {
    /// An `i64`.
    pub const SIGNED: u32 = 1;
    /// A `u64`.
    pub const UNSIGNED: u32 = 2;
    /// The bits of an `f64`.
    pub const FLOAT: u32 = 3;
    /// 0 or 1.
    pub const BOOL: u32 = 4;
    /// Text that is a string.
    pub const STRING: u32 = 5;
    /// Text that stands for something else, as its `Debug` or `Display` has it.
    pub const TEXT: u32 = 6;
    /// The text of an error.
    pub const ERROR: u32 = 7;
    /// The text of what caused the error before it.
    pub const CAUSE: u32 = 8;
}

/// The values of an event or a span.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Values {
    /// Those that there are.
    pub values: Many<Value>,
    /// The texts of all.
    pub text: Span,
}

/// What an event or a span lies in.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Parent {
    /// One of the constants below.
    pub kind: u32,
    /// The span, if the kind is one.
    pub span: u64,
}

impl Parent {
    /// Whatever this thread is in.
    pub const CURRENT: u32 = 0;
    /// Nothing.
    pub const NONE: u32 = 1;
    /// A span.
    pub const SPAN: u32 = 2;
}

/// The span that a thread is in.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Current {
    /// The span; 0 if there is none of this plugin's.
    pub span: u64,
    /// What the plugin gave when it opened the span.
    pub tag: Address,
}

/// Where what a library logs goes.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Logs {
    /// What the functions get.
    pub data: *const c_void,
    /// The functions.
    pub functions: LogFunctionsRef,
}

/// What the host does with what a library logs. The functions may be called from any thread, at any time; they stay as long as the library is
/// mapped. Fields may be appended at the end.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = LogFunctionsRef)))]
#[sabi(missing_field(option))]
pub struct LogFunctions {
    /// The most detailed level that anybody wants: 0 (none) to 5 (trace).
    pub most: unsafe extern "C" fn(data: *const c_void) -> u32,
    /// Names a callsite; the same one again leads to the same site.
    pub callsite: unsafe extern "C" fn(data: *const c_void, callsite: Callsite) -> Site,
    /// The site's interest as it is now.
    pub interest: unsafe extern "C" fn(data: *const c_void, site: Address) -> u32,
    /// Whether it is wanted just now, for a site whose interest is `SOMETIMES`; not 0 if so.
    pub enabled: unsafe extern "C" fn(data: *const c_void, site: Address) -> u32,
    /// Something happened.
    pub event: unsafe extern "C" fn(data: *const c_void, site: Address, parent: Parent, values: Values),
    /// Opens a span, which is held once by whoever opened it; 0 if that failed. The tag comes back from `current`.
    pub open: unsafe extern "C" fn(data: *const c_void, site: Address, tag: Address, parent: Parent, values: Values) -> u64,
    /// More values of a span.
    pub record: unsafe extern "C" fn(data: *const c_void, span: u64, values: Values),
    /// A span follows from another one.
    pub follows: unsafe extern "C" fn(data: *const c_void, span: u64, from: u64),
    /// Something becomes of a span: one of the constants below. Not 0 if it was closed by that.
    pub turn: unsafe extern "C" fn(data: *const c_void, span: u64, turn: u32) -> u32,
    /// The innermost span of this plugin's that this thread is in.
    #[sabi(last_prefix_field)]
    pub current: unsafe extern "C" fn(data: *const c_void) -> Current,
}

impl Logs {
    /// This thread enters the span.
    pub const ENTER: u32 = 1;
    /// This thread leaves the span.
    pub const EXIT: u32 = 2;
    /// The span has one more holder.
    pub const HOLD: u32 = 3;
    /// The span has one holder less, and is closed without any.
    pub const LET_GO: u32 = 4;
}

// SAFETY: the host's functions may be called with its data from any thread.
unsafe impl Send for Logs {}
// SAFETY: as above.
unsafe impl Sync for Logs {}
