//! What do new requests reach?
//!
//! One pointer to the live snapshot. Admission loads it once, a publish replaces it with one store; neither waits for the other.

use std::sync::Arc;

use crate::live::lease::Lease;
use crate::live::snapshot::Snapshot;
use crate::sys::sync::Pointer;

/// Where the live snapshot sits.
pub(crate) struct Slot<S = Snapshot> {
    live: Pointer<S>,
}

impl<S> Slot<S> {
    /// A slot in which nothing serves yet.
    #[must_use]
    pub(crate) fn new(empty: Arc<S>) -> Self {
        Self { live: Pointer::new(empty) }
    }

    /// Admits a call to what serves now. Wait-free, no lock, no shared line written.
    #[must_use]
    pub(crate) fn admit(&self) -> Lease<S> {
        Lease::new(self.live.load())
    }

    /// What serves now, to look at.
    #[must_use]
    pub(crate) fn now(&self) -> Arc<S> {
        self.live.load_full()
    }

    /// The one store that makes `next` live; what was live before.
    pub(crate) fn store(&self, next: Arc<S>) -> Arc<S> {
        self.live.swap(next)
    }
}

#[cfg(all(test, not(midair_loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use super::*;
    use crate::live::lease::{Leases, Named};

    /// Says in a table that outlives it when it is gone.
    struct Canary {
        number: usize,
        gone: Arc<Vec<AtomicBool>>,
    }

    impl Drop for Canary {
        fn drop(&mut self) {
            assert!(!self.gone[self.number].swap(true, Ordering::SeqCst), "{} goes twice", self.number);
        }
    }

    /// arc-swap can't be modelled, so it is driven: more leases at once than a thread has places for, and at every moment a store.
    #[test]
    fn what_was_admitted_stays_until_its_lease_ends_and_then_goes_once() {
        const PUBLISHED: usize = 40_000;
        let gone: Arc<Vec<AtomicBool>> = Arc::new((0..PUBLISHED).map(|_| AtomicBool::new(false)).collect());
        let canary = |number| Arc::new(Canary { number, gone: Arc::clone(&gone) });
        let (slot, leases, next) = (Slot::new(canary(0)), Leases::new(), AtomicUsize::new(1));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let number = next.fetch_add(1, Ordering::SeqCst)
                        && number < PUBLISHED
                    {
                        // What was live before is held a little, as a journey does.
                        let before = slot.store(canary(number));
                        assert!(!gone[before.number].load(Ordering::SeqCst));
                    }
                });
            }
            for pins in [true, false, true] {
                let (slot, leases, gone, next) = (&slot, &leases, &gone, &next);
                scope.spawn(move || {
                    let mut held = VecDeque::new();
                    while next.load(Ordering::SeqCst) < PUBLISHED {
                        let lease = slot.admit();
                        let number = lease.snapshot().number;
                        let named = Named { generation: 1, epoch: number as u64, handler: 0 };
                        let lease = if pins { lease.pin(leases, named) } else { lease };
                        let nested = (pins && number % 2 == 0).then(|| lease.nest(leases, named));
                        held.push_back((number, lease, nested));
                        // Twice as many as arc-swap has places for in a thread.
                        let over = held.len() > 16;
                        let (number, lease, nested) = if over { held.pop_front().expect("many") } else { continue };
                        let seen = [Some(&lease), nested.as_ref()].map(|lease| lease.map(|lease| lease.snapshot().number));
                        assert!(seen.into_iter().flatten().all(|seen| seen == number), "one request, one snapshot");
                        assert!(!gone[number].load(Ordering::SeqCst), "{number} is gone and held");
                        drop(lease);
                        assert!(nested.is_none() || !gone[number].load(Ordering::SeqCst), "{number} is gone and held");
                    }
                });
            }
        });
        let last = slot.now().number;
        let left: Vec<usize> = (0..PUBLISHED).filter(|number| !gone[*number].load(Ordering::SeqCst)).collect();
        assert_eq!((left, leases.list().len()), (vec![last], 0), "what is over is gone");
        drop(slot);
        assert!(gone[last].load(Ordering::SeqCst));
    }
}
