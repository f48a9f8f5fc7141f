//! What becomes of what a plugin logs?
//!
//! Each library gets a `Source`, whose functions it calls with callsites, events and spans. They become events and spans of this process's
//! own `tracing` subscriber, whichever that is: under metadata that is made once for each callsite (`sites`), with the values copied out of
//! the call (`values`), and in spans of which the plugin has nothing but a number (`spans`). Beside its own fields each has [`FIELD`], which
//! says whose it is.
//!
//! What the subscriber doesn't want is left out in the plugin already. `tracing` tells each callsite when that changed, and so a callsite of
//! ours: then all libraries are asked to look again, on a thread of its own and under a deadline. That thread also takes what is logged while
//! a thread ends: the subscriber's own thread-locals may be gone there.
//!
//! A probe has no subscriber: what is logged there becomes events on its bus, and goes to the host.

mod host_logs;
mod late;
mod sites;
mod source;
mod spans;
mod speaker;
mod values;

pub use self::host_logs::{Filter, Logs, Unchanged};
pub(crate) use self::source::Source;
pub(crate) use self::spans::visit;
pub use self::speaker::{FIELD, Speaker, Unsaid};

/// Whether this is of a plugin, and not of the host itself.
#[must_use]
pub fn is_of_plugin(metadata: &tracing::Metadata<'_>) -> bool {
    sites::is_ours(metadata)
}

/// How many callsites of plugins this process knows; equal ones of all generations are one. It ends at 8,192: events and spans of any more
/// come under a callsite that says so.
#[must_use]
pub fn callsites() -> usize {
    sites::count()
}
