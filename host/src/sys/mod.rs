//! What does this platform do for a host?
//!
//! What only Linux says or does this way of processes and threads. It knows nothing of plugins, generations or snapshots; object files are
//! `artifact/inspect`'s.

pub(crate) mod bell;
pub(crate) mod durable;
#[expect(unsafe_code, reason = "handles signals of crashes and reads stacks")]
pub(crate) mod fatal;
#[expect(unsafe_code, reason = "starts plugins' threads and runs their destructors")]
pub(crate) mod native_resources;
pub(crate) mod process;
#[cfg(feature = "http")]
pub(crate) mod random;
#[expect(unsafe_code, reason = "reads and installs handlers of signals")]
pub mod signals;
pub(crate) mod sync;
pub(crate) mod timeout;
