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
//! # Logs
//!
//! What a plugin logs with the crates `tracing` and `log` arrives at the host, with the name of the plugin and the number of the generation; so does
//! [`Ctx::info`]. What the host's filter leaves out costs next to nothing, and the filter can be changed while the plugin runs. A plugin sets no
//! subscriber and no logger of its own: the host's are there before its function runs. Spans are best entered by `Instrument` in async handlers. In unit tests
//! nobody listens, unless the test sets a subscriber. The feature `tracing`, on by default, can be turned off.
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
//! - What needs a tokio reactor (reqwest, sqlx, `tokio::time`, ..) needs the feature `tokio`: each generation then has a runtime of its own,
//!   entered wherever its code runs. Connections that it holds end with the generation. With tokio's own features `signal`, `process` or
//!   `full` each generation leaves two descriptors behind, as tokio never closes its pipe for signals.
//! - Panics must unwind: a plugin built with `panic = "abort"` is refused.

mod error;
mod glue;
mod handler;
mod host;
pub mod test;

pub use bytes::Bytes;
pub use error::{Error, Result};
pub use futures_core::Stream;
#[doc(hidden)]
pub use glue::export::expanded as __export;
pub use glue::operation::Operation;
pub use handler::body::BodyStream;
pub use handler::frame::{Closed, Message};
pub use handler::plugin::{IntoReply, Plugin};
pub use handler::request::{Request, RequestBuilder};
pub use handler::response::{File, Html, IntoResponse, Json, Redirect, Response};
pub use handler::socket::{Conn, ConnRef, Pinned, Room, Socket, State};
pub use handler::sse;
pub use host::ctx::{Ctx, Level};
pub use host::every::{Beat, Every, Overlap};
pub use host::message;
pub use host::message::On;
pub use host::service::Service;
pub use host::state::{Batch, Cell, Counter, Revision, Table};
pub use host::work::{Interval, Task};
pub use http::{HeaderMap, Method, StatusCode};

/// The README's code runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
