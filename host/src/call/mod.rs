//! How does one call run through a plugin?
//!
//! From the snapshot that admits it to the answer. It doesn't know why something is called, or what is swapped meanwhile.

pub(crate) mod body;
pub(crate) mod context;
pub(crate) mod invocation;
pub(crate) mod refusal;
pub(crate) mod request;
pub(crate) mod respond;
