//! What does this platform do for a host?
//!
//! Everything that only Linux has or does this way. It knows nothing of plugins, generations or snapshots.

pub(crate) mod bell;
#[expect(unsafe_code, reason = "starts plugins' threads and runs their destructors")]
pub(crate) mod native_resources;
pub(crate) mod process;
pub(crate) mod sync;
pub(crate) mod timeout;
