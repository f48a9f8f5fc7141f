//! What can a plugin ask of its host?
//!
//! `ctx` and what hangs on it, over the one trait in `link`; `attached` alone knows the host's function table.

#[expect(unsafe_code, reason = "the only caller of the host's function table")]
pub(crate) mod attached;
pub(crate) mod config;
pub(crate) mod ctx;
pub(crate) mod every;
pub(crate) mod link;
pub mod message;
pub(crate) mod service;
pub(crate) mod state;
pub(crate) mod work;
