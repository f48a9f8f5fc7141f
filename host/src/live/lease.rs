//! Which calls are in flight?
//!
//! A lease holds a snapshot, so that all code that it can reach stays, and keeps a record that tells a stranger what runs, since when, on
//! which generation. Whether a generation is still needed is decided by reference counts alone; records are for people.
//!
//! # Protocol
//!
//! Each thread that admits requests owns a shard, a chain of pages of 64 places, so that a record touches no line that another thread's
//! record writes. Per place:
//!
//! 1. Only the owner claims. It finds a clear bit in `used` (acquire), sets it, issues a release fence, writes the fields (relaxed) and
//!    then `id` (release). Ids are never reused.
//! 2. Anybody releases, once: `id` becomes 0, then the bit is cleared (release). The owner's acquire in step 1 sees the former.
//! 3. Anybody reads: `id` (acquire), the fields (relaxed), an acquire fence, `id` again. If both ids are equal and not 0, the fields
//!    belong to that id: had a later claim written one of them, its release fence would have made the 0 of step 2 visible.
//!
//! The model at the end runs this very code under loom.

use std::cell::RefCell;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

use crate::sys::sync::{AtomicU32, AtomicU64, Guard, Ordering, fence, thread_local};

#[cfg(not(midair_loom))]
const PLACES: usize = 64;
/// A model explores every interleaving; two places show all that can go wrong between neighbours.
#[cfg(midair_loom)]
const PLACES: usize = 2;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Nanoseconds from the registry's start to the call's.
    pub start_ns: u64,
    /// Which generation, by its key.
    pub generation: u64,
    /// The epoch of the snapshot that it was admitted to, all of which it holds.
    pub epoch: u64,
    /// Which of the generation's handlers.
    pub handler: u32,
}

/// Which call a lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The generation, by its key.
    pub generation: u64,
    /// The epoch of the snapshot that is held.
    pub epoch: u64,
    /// Which of the generation's handlers.
    pub handler: u32,
}

#[derive(Default)]
struct Place {
    id: AtomicU64,
    start_ns: AtomicU64,
    generation: AtomicU64,
    epoch: AtomicU64,
    handler: AtomicU32,
}

struct Page {
    used: AtomicU64,
    places: [Place; PLACES],
    next: OnceLock<Arc<Page>>,
}

impl Default for Page {
    fn default() -> Self {
        Self { used: AtomicU64::new(0), places: std::array::from_fn(|_| Place::default()), next: OnceLock::new() }
    }
}

impl Page {
    /// Step 1. Only the shard's owner calls this.
    fn claim(self: &Arc<Self>, id: u64, facts: Facts) -> Record {
        let mut page = self;
        loop {
            let free = (!page.used.load(Ordering::Acquire)).trailing_zeros() as usize;
            if free < PLACES {
                page.used.fetch_or(1 << free, Ordering::Relaxed);
                fence(Ordering::Release);
                let place = &page.places[free];
                place.start_ns.store(facts.start_ns, Ordering::Relaxed);
                place.generation.store(facts.generation, Ordering::Relaxed);
                place.epoch.store(facts.epoch, Ordering::Relaxed);
                place.handler.store(facts.handler, Ordering::Relaxed);
                place.id.store(id, Ordering::Release);
                return Record { page: Arc::clone(page), place: free };
            }
            page = page.next.get_or_init(Arc::default);
        }
    }

    /// Step 2.
    fn release(&self, place: usize) {
        self.places[place].id.store(0, Ordering::Release);
        self.used.fetch_and(!(1 << place), Ordering::Release);
    }

    /// Step 3.
    fn read(&self, place: usize) -> Option<(u64, Facts)> {
        let place = &self.places[place];
        let id = place.id.load(Ordering::Acquire);
        let facts = Facts {
            start_ns: place.start_ns.load(Ordering::Relaxed),
            generation: place.generation.load(Ordering::Relaxed),
            epoch: place.epoch.load(Ordering::Relaxed),
            handler: place.handler.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        (id != 0 && place.id.load(Ordering::Relaxed) == id).then_some((id, facts))
    }
}

/// A place in the registry; dropping it ends the record.
struct Record {
    page: Arc<Page>,
    place: usize,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.page.release(self.place);
    }
}

/// One thread's pages and its next id.
struct Shard {
    pages: Arc<Page>,
    /// The shard's number in the upper 24 bits, a count in the lower 40.
    next_id: u64,
}

/// All leases of a host.
pub(crate) struct Leases {
    key: usize,
    start: Instant,
    /// Pages of all threads that ever admitted a request, and the shards of those that ended, to be used again.
    all: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    pages: Vec<Arc<Page>>,
    idle: Vec<Shard>,
}

/// Shards of this thread, by the key of their registry; given back when the thread ends.
#[derive(Default)]
struct Mine(Vec<(Arc<Leases>, Shard)>);

impl Drop for Mine {
    fn drop(&mut self) {
        for (leases, shard) in self.0.drain(..) {
            leases.all.lock().idle.push(shard);
        }
    }
}

thread_local! {
    static MINE: RefCell<Mine> = RefCell::default();
}

impl Leases {
    /// An empty registry.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        static KEYS: AtomicUsize = AtomicUsize::new(1);
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { key, start: Instant::now(), all: Mutex::default() })
    }

    /// What is in flight, oldest first, as `(id, facts, age in nanoseconds)`. A call that begins or ends meanwhile may be missing.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<(u64, Facts, u64)> {
        let now = self.now_ns();
        let shards = self.all.lock().pages.clone();
        let mut found = Vec::new();
        for shard in &shards {
            let mut page = Some(shard);
            while let Some(here) = page {
                found.extend((0..PLACES).filter_map(|place| here.read(place)));
                page = here.next.get();
            }
        }
        let mut found: Vec<_> = found.into_iter().map(|(id, facts)| (id, facts, now.saturating_sub(facts.start_ns))).collect();
        found.sort_unstable_by_key(|(_, _, age)| std::cmp::Reverse(*age));
        found
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn record(self: &Arc<Self>, call: Named) -> Option<Record> {
        let Named { generation, epoch, handler } = call;
        let facts = Facts { start_ns: self.now_ns(), generation, epoch, handler };
        // A thread that is ending has no shard any more; its call goes unrecorded, not unheld.
        MINE.try_with(|mine| {
            let mut mine = mine.borrow_mut();
            let at = mine.0.iter().position(|(leases, _)| leases.key == self.key).unwrap_or_else(|| {
                mine.0.push((Arc::clone(self), self.shard()));
                mine.0.len() - 1
            });
            let shard = &mut mine.0[at].1;
            shard.next_id += 1;
            shard.pages.claim(shard.next_id, facts)
        })
        .ok()
    }

    fn shard(&self) -> Shard {
        let mut all = self.all.lock();
        all.idle.pop().unwrap_or_else(|| {
            let pages = Arc::<Page>::default();
            all.pages.push(Arc::clone(&pages));
            Shard { pages, next_id: (all.pages.len() as u64) << 40 }
        })
    }
}

/// Proof that a call is in flight: the snapshot that it was admitted to, held, and its record.
///
/// While it is new it holds the snapshot by one of arc-swap's per-thread debts; one that outlives its thread's attention is
/// [`pin`](Self::pin)ned, since a thread has eight of them.
pub(crate) struct Lease<S> {
    // Never read: its drop ends the record, before what it tells of may go.
    #[allow(dead_code, reason = "held for its drop")]
    record: Option<Record>,
    hold: Hold<S>,
}

enum Hold<S> {
    Guard(Guard<S>),
    Pinned(Arc<S>),
}

impl<S> Lease<S> {
    pub(crate) fn new(guard: Guard<S>) -> Self {
        Self { record: None, hold: Hold::Guard(guard) }
    }

    /// On a snapshot that doesn't serve, but is there to be gone back to.
    pub(crate) fn on(snapshot: Arc<S>) -> Self {
        Self { record: None, hold: Hold::Pinned(snapshot) }
    }

    /// The snapshot that it holds.
    #[must_use]
    pub(crate) fn snapshot(&self) -> &S {
        match &self.hold {
            Hold::Guard(guard) => guard,
            Hold::Pinned(snapshot) => snapshot,
        }
    }

    /// Holds the snapshot by a count of its own and records which handler runs.
    #[must_use]
    pub(crate) fn pin(self, leases: &Arc<Leases>, call: Named) -> Self {
        let snapshot = match self.hold {
            Hold::Guard(guard) => Guard::into_inner(guard),
            Hold::Pinned(snapshot) => snapshot,
        };
        Self { record: leases.record(call), hold: Hold::Pinned(snapshot) }
    }

    /// One more lease on the same snapshot, for a nested call of another handler.
    #[must_use]
    pub(crate) fn nest(&self, leases: &Arc<Leases>, call: Named) -> Self {
        let snapshot = match &self.hold {
            Hold::Guard(guard) => Arc::clone(guard),
            Hold::Pinned(snapshot) => Arc::clone(snapshot),
        };
        Self { record: leases.record(call), hold: Hold::Pinned(snapshot) }
    }
}

#[cfg(all(test, not(midair_loom)))]
mod tests {
    use super::*;

    fn named(generation: u64, handler: u32) -> Named {
        Named { generation, epoch: 1, handler }
    }

    #[test]
    fn records_are_listed_while_they_last_and_pages_are_used_again() {
        let leases = Leases::new();
        let mut held: Vec<_> = (0..200).map(|n| leases.record(named(7, n))).collect();
        assert_eq!(leases.list().len(), 200);
        held.drain(..150);
        let left: Vec<u32> = leases.list().iter().map(|(_, facts, _)| facts.handler).collect();
        assert_eq!(left.len(), 50);
        assert!(left.iter().all(|handler| *handler >= 150));
        held.extend((0..150).map(|n| leases.record(named(8, n))));
        assert_eq!(leases.all.lock().pages.len(), 1, "one thread, one shard");
        let elsewhere = Arc::clone(&leases);
        let record = std::thread::spawn(move || elsewhere.record(named(9, 0))).join().expect("a thread");
        assert_eq!(leases.list().len(), 201);
        drop((held, record));
        assert_eq!(leases.list(), []);
        let again = Arc::clone(&leases);
        std::thread::spawn(move || drop(again.record(named(9, 0)))).join().expect("a thread");
        assert_eq!(leases.all.lock().pages.len(), 2, "the ended thread's shard is used again");
    }
}

#[cfg(all(test, midair_loom))]
mod model {
    use super::*;

    const A: Facts = Facts { start_ns: 1, generation: 1, epoch: 1, handler: 1 };
    const B: Facts = Facts { start_ns: 2, generation: 2, epoch: 2, handler: 2 };

    /// A record is claimed, released by another thread and claimed anew while a third reads: no reader sees one record's id with the
    /// other's facts.
    #[test]
    fn a_reader_never_mixes_two_records() {
        loom::model(|| {
            let page = Arc::new(Page::default());
            page.used.store(0b10, Ordering::Relaxed);
            let first = page.claim(1, A);
            let releaser = loom::thread::spawn(move || drop(first));
            let reader = {
                let page = Arc::clone(&page);
                loom::thread::spawn(move || page.read(0))
            };
            if page.used.load(Ordering::Acquire) & 1 == 0 {
                std::mem::forget(page.claim(2, B));
            }
            match reader.join().expect("a reader") {
                None | Some((1, A)) | Some((2, B)) => {}
                mixed => panic!("{mixed:?}"),
            }
            releaser.join().expect("a releaser");
        });
    }
}
