//! Under which address does the host know a callsite?
//!
//! Asked by every event, written once by each callsite: buckets of chains that only grow, read without a lock.

use std::sync::OnceLock;

use midair_abi::Address;
use tracing_core::Metadata;

/// Chains are short up to a few thousand callsites, which is more than a plugin with its dependencies has.
const BUCKETS: usize = 512;

/// The callsites that the host knows.
pub(super) struct Sites([OnceLock<Box<Link>>; BUCKETS]);

struct Link {
    callsite: usize,
    site: Address,
    next: OnceLock<Box<Link>>,
}

impl Sites {
    pub(super) const fn new() -> Self {
        Self([const { OnceLock::new() }; BUCKETS])
    }

    /// The host's address of a callsite, if it was named.
    pub(super) fn get(&self, metadata: &'static Metadata<'static>) -> Option<Address> {
        let callsite = place(metadata);
        let mut link = self.bucket(callsite).get();
        while let Some(Link { callsite: this, site, next }) = link.map(|link| &**link) {
            if *this == callsite {
                return Some(*site);
            }
            link = next.get();
        }
        None
    }

    /// Keeps the host's address of a callsite; the one that was kept before stays.
    pub(super) fn put(&self, metadata: &'static Metadata<'static>, site: Address) {
        let callsite = place(metadata);
        let mut end = self.bucket(callsite);
        loop {
            let link = end.get_or_init(|| Box::new(Link { callsite, site, next: OnceLock::new() }));
            if link.callsite == callsite {
                return;
            }
            end = &link.next;
        }
    }

    fn bucket(&self, callsite: usize) -> &OnceLock<Box<Link>> {
        // Metadata lies in rows of statics: the low bits say little.
        &self.0[(callsite >> 4) % BUCKETS]
    }
}

/// Statics don't move, and what was leaked isn't freed.
fn place(metadata: &'static Metadata<'static>) -> usize {
    std::ptr::from_ref(metadata).addr()
}
