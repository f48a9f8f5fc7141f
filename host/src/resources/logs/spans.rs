//! Which spans of plugins are open, and which is each thread in?
//!
//! A plugin has a number for each; the span itself, its holders and the subscriber that it belongs to are here. What a thread is in is kept
//! for two reasons: a plugin may ask, and what it forgot to leave must not be taken for what the thread's next request is in.

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use midair_abi::Address;
use midair_abi::wall;
use parking_lot::Mutex;
use tracing::Span;

use super::sites::Site;

/// A span of a plugin's.
pub(super) struct Open {
    pub(super) number: u64,
    pub(super) span: Span,
    pub(super) site: &'static Site,
    tag: Address,
    owner: usize,
    holders: AtomicUsize,
}

const SHARDS: usize = 16;

/// The spans of one library that aren't closed yet.
#[derive(Default)]
pub(super) struct Spans([Mutex<HashMap<u64, Arc<Open>>>; SHARDS]);

impl Spans {
    fn shard(&self, number: u64) -> &Mutex<HashMap<u64, Arc<Open>>> {
        &self.0[number as usize % SHARDS]
    }

    /// Keeps a span that its owner opened, with one holder; its number, unique in the process.
    pub(super) fn put(&self, span: Span, site: &'static Site, tag: Address, owner: usize) -> u64 {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let open = Open { number, span, site, tag, owner, holders: AtomicUsize::new(1) };
        self.shard(number).lock().insert(number, Arc::new(open));
        number
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<Open>> {
        self.shard(number).lock().get(&number).cloned()
    }

    /// One more holder.
    pub(super) fn hold(&self, number: u64) {
        if let Some(open) = self.get(number) {
            open.holders.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One holder less; `true` if it was the last.
    pub(super) fn let_go(&self, number: u64) -> bool {
        let mut shard = self.shard(number).lock();
        let is_last = shard.get(&number).is_some_and(|open| open.holders.fetch_sub(1, Ordering::AcqRel) == 1);
        if !is_last {
            return false;
        }
        let closed = shard.remove(&number);
        drop(shard);
        // The subscriber hears of it, outside of the lock.
        drop(closed);
        true
    }

    /// Closes all.
    pub(super) fn close(&self) {
        for shard in &self.0 {
            let open = std::mem::take(&mut *shard.lock());
            open.into_values().for_each(wall::guard_drop);
        }
    }
}

thread_local! {
    /// What plugins entered on this thread and didn't leave yet. Without `Drop`: plugins log until the very end of a thread. It holds no
    /// memory while it is empty.
    static INSIDE: RefCell<ManuallyDrop<Vec<Arc<Open>>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// This thread is in the span from now on.
pub(super) fn enter(open: Arc<Open>) {
    INSIDE.with_borrow_mut(|inside| inside.push(open));
}

/// This thread leaves the span; whether it was in it.
pub(super) fn exit(number: u64) -> Option<Arc<Open>> {
    INSIDE.with_borrow_mut(|inside| {
        let at = inside.iter().rposition(|open| open.number == number)?;
        let open = inside.remove(at);
        if inside.is_empty() {
            **inside = Vec::new();
        }
        Some(open)
    })
}

/// The innermost span that this thread is in, of those that `is` is true for.
pub(super) fn current(is: impl Fn(&Open) -> bool) -> Option<Arc<Open>> {
    INSIDE.with_borrow(|inside| inside.iter().rev().find(|open| is(open)).cloned())
}

impl Open {
    /// What the plugin gave when it opened it.
    pub(super) fn tag(&self) -> Address {
        self.tag
    }

    /// Whose it is.
    pub(super) fn owner(&self) -> usize {
        self.owner
    }
}

/// Leaves what plugins forgot to leave on this thread. For threads that come by between calls of plugins, where it costs a load.
#[inline]
pub(crate) fn visit() {
    let is_inside = INSIDE.with_borrow(|inside| !inside.is_empty());
    if is_inside {
        leave();
    }
}

#[cold]
fn leave() {
    let forgotten = INSIDE.with_borrow_mut(|inside| std::mem::take(&mut **inside));
    for open in forgotten.into_iter().rev() {
        let _ = wall::guard(|| open.span.with_subscriber(|(id, dispatch)| dispatch.exit(id)));
        wall::guard_drop(open);
    }
}
