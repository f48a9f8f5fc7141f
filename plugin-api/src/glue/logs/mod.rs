//! How does what a plugin logs arrive at its host?
//!
//! Each cdylib has its own copy of what `tracing` and `log` keep in statics, so the host's subscriber isn't there. Before anything of the
//! plugin runs, the host says where it listens, and this room takes both crates' places: `bridge` is the plugin's global subscriber,
//! `records` its logger.
//!
//! What nobody wants is left out on this side, by what `tracing` itself remembers of each callsite; when the host's filter changes it has
//! that asked anew. Nothing here is a thread-local: it works on threads that end, and ties no code to the host's threads.
//!
//! Without the feature `tracing` the host's two calls do nothing.

#[cfg(feature = "tracing")]
mod bridge;
#[cfg(feature = "tracing")]
mod records;
#[cfg(feature = "tracing")]
mod sites;
#[cfg(feature = "tracing")]
mod values;

use midair_abi::logs::Logs;
#[cfg(feature = "tracing")]
use midair_abi::wall;

/// Takes the places of the plugin's subscriber and logger. Whoever set one before keeps it: then those lines don't arrive.
///
/// # Safety
///
/// The functions may be called with their data for as long as this library is mapped.
pub(crate) unsafe extern "C" fn log_to(logs: Logs) {
    #[cfg(feature = "tracing")]
    wall::guard_told(|| {
        records::install(logs);
        bridge::install(logs);
    });
    #[cfg(not(feature = "tracing"))]
    let _ = logs;
}

/// Asks the host anew what it wants of each callsite.
pub(crate) extern "C" fn refilter() {
    #[cfg(feature = "tracing")]
    wall::guard_told(|| {
        records::refilter();
        tracing_core::callsite::rebuild_interest_cache();
    });
}
