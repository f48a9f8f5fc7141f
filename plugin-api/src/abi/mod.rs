//! What crosses between host and plugin, byte by byte?
//!
//! Everything here is `#[repr(C)]`, laid out by abi_stable's derive and compared, type by type, before a plugin's first function is called.
//! Plugin authors never name this module; hosts and the shims of this crate do. Three rules hold for all of it:
//!
//! - Memory is freed by the side that made it: whatever owns memory carries an [`Owner`] with its maker's release function.
//! - Spans borrow from the `Owner` beside them, or, in an argument, from the caller until the call returns.
//! - Kinds are `u32` and an unknown one is refused: no Rust enum crosses.

mod host;
pub mod logs;
mod memory;
mod outcome;
mod plugin;
mod request;
mod socket;
mod state;

pub use host::{Context, Host, HostRef, Identity};
pub use memory::{Address, Many, Owner, Pair, Span};
pub use outcome::{Outcome, PollFn, Waker, WakerVtable};
pub use plugin::{Built, Census, Enrolled, Handler, Made, Root, RootRef, SelfTest, Smoke, TableDecl};
pub use request::{Parts, Peer, Request};
pub use socket::SocketOp;
pub use state::{Op, Row};

/// The version of this border. A host serves plugins of its own version only.
pub const ABI_VERSION: u32 = 1;

/// The exported symbol that leads to the root, which is where abi_stable puts it.
pub const ROOT_SYMBOL: &[u8] = abi_stable::library::ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes();
