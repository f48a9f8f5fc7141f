//! What do plugins use that lives longer than their code?
//!
//! State, topics, WebSockets, tasks, logs, and what a custom host does for its plugins. Each is kept by names and numbers: none of it knows what a
//! generation is, or what is live.

pub(crate) mod host_services;
#[expect(unsafe_code, reason = "the functions by which plugins log")]
pub mod logs;
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only a host that speaks HTTP has connections"))]
pub(crate) mod sockets;
pub(crate) mod state;
pub(crate) mod tasks;
pub(crate) mod topics;
