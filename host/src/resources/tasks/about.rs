//! Whose work is it?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whose work it is and what it is called.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// Its generation, by key.
    pub generation: u64,
    /// The plugin.
    pub plugin: String,
    /// The generation's number.
    pub number: u64,
    /// Its name, or where it was spawned.
    pub name: String,
    /// Whether it may be dropped when its generation was replaced.
    pub until_retire: bool,
    /// Whether it asked to be told when its generation is to end, if it belongs to no request.
    pub heeds: Option<Arc<AtomicBool>>,
}

impl About {
    /// Whether the end of the host waits for it: not for what may be dropped and doesn't even ask when.
    #[must_use]
    pub(super) fn is_awaited(&self) -> bool {
        !self.until_retire || self.heeds.as_ref().is_some_and(|heeds| heeds.load(Ordering::Relaxed))
    }
}
