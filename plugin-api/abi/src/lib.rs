//! What crosses between host and plugin, byte by byte?
//!
//! What both sides compile, each its own copy, and nothing else: it knows no HTTP library, no serde and no runtime. A plugin's author depends on
//! `midair-plugin`, which stands on this; a host depends on this alone.
//!
//! The types at the root are `#[repr(C)]`, laid out by abi_stable's derive and compared, type by type, before a plugin's first function is called.
//! Three rules hold for all of them:
//!
//! - Memory is freed by the side that made it: whatever owns memory carries an [`Owner`] with its maker's release function.
//! - Spans borrow from the `Owner` beside them, or, in an argument, from the caller until the call returns.
//! - Kinds are `u32` and an unknown one is refused: no Rust enum crosses.
//!
//! The modules beside them are how these types are used: [`task`] and [`stream`] carry futures and bodies over, [`wall`] keeps panics on their
//! side, [`root`], [`manifest`] and [`constants`] are found in a library's file, and [`store`] is what a plugin's state means, wherever it lies.

#[expect(unsafe_code, reason = "calls what it gives, where abi_stable derives its layout")]
mod host;
#[expect(unsafe_code, reason = "the host's functions may be called from any thread")]
pub mod logs;
#[expect(unsafe_code, reason = "spans and owners")]
mod memory;
#[expect(unsafe_code, reason = "reads what it owns")]
mod outcome;
#[expect(unsafe_code, reason = "reads what it owns")]
mod plugin;
#[expect(unsafe_code, reason = "reads what it owns")]
mod request;
mod socket;
#[expect(unsafe_code, reason = "reads spans")]
mod state;

pub mod constants;
pub mod manifest;
#[expect(unsafe_code, reason = "abi_stable's header and root")]
pub mod root;
pub mod store;
#[expect(unsafe_code, reason = "bodies in pieces across the border")]
pub mod stream;
#[expect(unsafe_code, reason = "futures and wakers across the border")]
pub mod task;
#[expect(unsafe_code, reason = "walks the stack of a panic")]
pub mod wall;

pub use host::{Context, Host, HostRef, Identity};
pub use memory::{Address, Many, Owner, Pair, Span};
pub use outcome::{Outcome, PollFn, Waker, WakerVtable};
pub use plugin::{
    Built, Census, CensusFunctions, CensusFunctionsRef, Enrolled, Handler, Made, Root, RootRef, SelfTest, Smoke, TableDecl, meta,
};
pub use request::{Parts, Peer, Request};
pub use socket::SocketOp;
pub use state::{Op, Row};

/// The number of this border. A host serves plugins of its own number only, of this package's versions that are compatible.
///
/// It says what layouts and constants can't: that what is there is used otherwise.
pub const ABI_VERSION: u32 = 1;

/// The exported symbol that leads to the root, which is where abi_stable puts it.
pub const ROOT_SYMBOL: &[u8] = abi_stable::library::ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes();
