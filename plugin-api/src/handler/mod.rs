//! What is a plugin made of, and what do its handlers get and return?
//!
//! The types that a plugin's author names in the signatures of handlers. They know the host by `Ctx` alone.

pub(crate) mod body;
pub(crate) mod frame;
pub(crate) mod plugin;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod socket;
pub mod sse;
