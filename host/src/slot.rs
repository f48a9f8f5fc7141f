//! What do new requests reach?
//!
//! One pointer to the live snapshot. Admission loads it once, a publish replaces it with one store; neither waits for the other.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::lease::Lease;
use crate::snapshot::Snapshot;

/// Where the live snapshot sits.
pub(crate) struct Slot {
    live: ArcSwap<Snapshot>,
}

impl Slot {
    /// A slot in which nothing serves yet.
    #[must_use]
    pub(crate) fn new(empty: Arc<Snapshot>) -> Self {
        Self { live: ArcSwap::new(empty) }
    }

    /// Admits a call to what serves now. Wait-free, no lock, no shared line written.
    #[must_use]
    pub(crate) fn admit(&self) -> Lease<Snapshot> {
        Lease::new(self.live.load())
    }

    /// What serves now, to look at.
    #[must_use]
    pub(crate) fn now(&self) -> Arc<Snapshot> {
        self.live.load_full()
    }

    /// The one store that makes `next` live; what was live before.
    pub(crate) fn publish(&self, next: Arc<Snapshot>) -> Arc<Snapshot> {
        self.live.swap(next)
    }
}
