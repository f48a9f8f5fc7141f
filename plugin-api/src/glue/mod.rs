//! How does a host enter this library, and what does it find there?
//!
//! What no author of a plugin sees: the exported root and the functions behind it, and what stands in for the system and for a runtime.

#[expect(unsafe_code, reason = "stands in for the system's functions of threads and thread-locals")]
pub(crate) mod census;
pub(crate) mod export;
#[expect(unsafe_code, reason = "the only caller of the functions by which a host hears what is logged")]
pub(crate) mod logs;
#[expect(unsafe_code, reason = "pins a future by hand, to need no dependency for it")]
pub(crate) mod operation;
#[cfg_attr(feature = "tokio", expect(unsafe_code, reason = "a handle that is freed with the generation"))]
pub(crate) mod runtime;
#[expect(unsafe_code, reason = "the functions that the host calls")]
pub(crate) mod shim;
