//! Write plugins whose code midair swaps while the host runs.
//!
//! A plugin is a cdylib of plain functions. The host owns what must live (sockets, connections, timers, state, logs), so that the code can
//! be replaced at any moment.
//!
//! ```
//! use midair_plugin::{Ctx, Plugin, Request, Result};
//!
//! midair_plugin::export!(plugin);
//!
//! fn plugin() -> Plugin {
//!     Plugin::new().get("/", |_, _| "hello").get("/hits", hits)
//! }
//!
//! async fn hits(_req: Request, ctx: Ctx) -> Result<String> {
//!     Ok(format!("{} hits", ctx.counter("hits").add(1).await?))
//! }
//! # fn main() {}
//! ```
//!
//! # Limitations
//!
//! - A panic in a handler is a 500 for that request. An abort, a segmentation fault, a stack overflow, a panic while another one unwinds, or
//!   one in the `Drop` of a `thread_local!` ends the host: std aborts there. While the code is opened and started it ends the probe, and the
//!   code before serves on.
//! - Threads of a plugin's own outlive a swap. What a `thread_local!` holds is dropped on its own thread: when that ends, or, on one of the
//!   host's, some time after the code was replaced and its last request ended.
//! - [`init`](Plugin::init) runs twice: in the probe, where new code is tried, and in the host.
//! - `static` variables start anew with each swap: what must survive belongs into [`Ctx::table`], [`Ctx::cell`] or [`Ctx::counter`].
//! - A blocking handler blocks one of the host's workers.
//! - No tokio of the plugin's own: [`Ctx::sleep`] keeps time, and futures that need no reactor work.
//! - Panics must unwind: a plugin built with `panic = "abort"` is refused.

mod ctx;
mod error;
mod export;
mod message;
mod plugin;
mod request;
mod response;
mod socket;
mod state;
pub mod test;
mod work;

#[expect(unsafe_code, reason = "the only caller of the host's function table")]
mod attached;
#[expect(unsafe_code, reason = "pins a future by hand, to need no dependency for it")]
mod operation;

#[doc(hidden)]
#[expect(unsafe_code, reason = "the border's types: spans, owners, function tables")]
pub mod abi;
#[doc(hidden)]
#[expect(unsafe_code, reason = "stands in for the system's functions of threads and thread-locals")]
pub mod census;
#[doc(hidden)]
pub mod manifest;
#[doc(hidden)]
#[expect(unsafe_code, reason = "abi_stable's header and root")]
pub mod root;
#[doc(hidden)]
#[expect(unsafe_code, reason = "the functions that the host calls")]
pub mod shim;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
#[expect(unsafe_code, reason = "futures and wakers across the border")]
pub mod task;
#[doc(hidden)]
#[expect(unsafe_code, reason = "walks the stack of a panic")]
pub mod wall;

pub use bytes::Bytes;
pub use ctx::{Ctx, Level};
pub use error::{Error, Result};
pub use http::{HeaderMap, Method, StatusCode};
pub use message::{Closed, Message};
pub use operation::Operation;
pub use plugin::{IntoReply, Plugin};
pub use request::{Request, RequestBuilder};
pub use response::{Html, IntoResponse, Json, Redirect, Response};
pub use socket::{Conn, ConnRef, Pinned, Room, Socket, State};
pub use state::{Batch, Cell, Counter, Revision, Table};
pub use work::{Interval, Task};

/// The README's code runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
