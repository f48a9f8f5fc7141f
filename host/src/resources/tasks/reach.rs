//! How does a call that the host makes by itself end, if its handler never does?

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::about::About;
use crate::sys::bell::Bell;

/// How a call that the host makes by itself came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// Well.
    Well,
    /// Its handler failed.
    Badly,
    /// It was given up, or never ran.
    GivenUp,
    /// Nobody was left who could have woken it.
    Lost,
}

impl Ran {
    /// Whether it ended, and well.
    #[must_use]
    pub(crate) fn is_well(self) -> bool {
        self == Self::Well
    }

    /// Whether it was dropped since nobody could have woken it.
    #[must_use]
    pub(crate) fn is_lost(self) -> bool {
        self == Self::Lost
    }
}

/// How a call is reached by whoever gives it up, and what becomes of it.
#[derive(Default)]
pub(super) struct Reach {
    is_given_up: AtomicBool,
    /// Whether it was woken since its poll began.
    is_woken: AtomicBool,
    wakes: Mutex<Weak<Wakes>>,
    began: OnceLock<Instant>,
    ran: Mutex<Option<(Ran, Duration)>>,
    told: Arc<Bell>,
}

impl Reach {
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::SeqCst);
        // Its own statement, as the call that it wakes takes the lock. If there is nobody to wake it, it is being polled or dropped.
        let wakes = self.wakes.lock().upgrade();
        wakes.into_iter().for_each(|wakes| wakes.outer.wake_by_ref());
    }

    /// What is said first holds.
    pub(super) fn tell(&self, ran: Ran) {
        let took = self.began.get().map(Instant::elapsed).unwrap_or_default();
        self.ran.lock().get_or_insert((ran, took));
        self.told.ring();
    }

    /// How it ended, and what time it took.
    pub(super) async fn ended(self: Arc<Self>) -> (Ran, Duration) {
        Arc::clone(&self.told).rung().await;
        self.ran.lock().unwrap_or((Ran::Lost, Duration::ZERO))
    }

    /// The waker for a poll. Whoever is to wake the call holds this, and `Reach` doesn't: so it shows when nobody can.
    fn waker(self: &Arc<Self>, waker: &Waker) -> Waker {
        let mut wakes = self.wakes.lock();
        let same = wakes.upgrade().filter(|wakes| wakes.outer.will_wake(waker));
        let same = same.unwrap_or_else(|| {
            let new = Arc::new(Wakes { outer: waker.clone(), reach: Arc::clone(self) });
            *wakes = Arc::downgrade(&new);
            new
        });
        same.into()
    }
}

struct Wakes {
    outer: Waker,
    reach: Arc<Reach>,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.reach.is_woken.store(true, Ordering::SeqCst);
        self.outer.wake_by_ref();
    }
}

impl Drop for Wakes {
    /// Nobody can wake the call any more: it is polled once more, and then it shows whether it waits for anything.
    fn drop(&mut self) {
        self.outer.wake_by_ref();
    }
}

/// The calls that aren't over, by number.
pub(super) type Calls = Mutex<BTreeMap<u64, (About, Arc<Reach>)>>;

/// A call until it is over or given up.
pub(super) struct Reached<F> {
    // Dropped first: that it is over is told when its code was left.
    future: Option<Pin<Box<F>>>,
    ended: CallEnd,
}

impl<F: Future<Output = bool>> Reached<F> {
    /// `future` says whether it failed; `id` is its place in the list of calls.
    pub(super) fn new(future: F, calls: Arc<Calls>, id: u64, reach: Arc<Reach>) -> Self {
        Self { future: Some(Box::pin(future)), ended: CallEnd { calls, id, reach } }
    }
}

/// Tells how a call ended, however it did.
struct CallEnd {
    calls: Arc<Calls>,
    id: u64,
    reach: Arc<Reach>,
}

impl Drop for CallEnd {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.id);
        // Unless it was told before, it was dropped where it waited.
        let was_given_up = self.reach.is_given_up.load(Ordering::SeqCst);
        self.reach.tell(if was_given_up { Ran::GivenUp } else { Ran::Lost });
    }
}

impl<F: Future<Output = bool>> Future for Reached<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let reach = &this.ended.reach;
        let waker = reach.waker(context.waker());
        // After the waker is known: whoever gives it up from here on wakes it.
        if reach.is_given_up.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        reach.began.get_or_init(Instant::now);
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        reach.is_woken.store(false, Ordering::SeqCst);
        let Poll::Ready(failed) = future.as_mut().poll(&mut Context::from_waker(&waker)) else {
            drop(waker);
            // Its own statement, as who drops the last of these must not have the lock. One that woke itself needs nobody else. What is
            // lost is dropped here: async-task forgets a future, undropped, whose last waker went while it was polled.
            let is_held = reach.wakes.lock().strong_count() > 0;
            let is_lost = !is_held && !reach.is_woken.load(Ordering::SeqCst);
            return if is_lost { Poll::Ready(()) } else { Poll::Pending };
        };
        // By its own code, before anybody hears of it.
        this.future = None;
        reach.tell(if failed { Ran::Badly } else { Ran::Well });
        Poll::Ready(())
    }
}
