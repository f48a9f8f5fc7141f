//! How does a future cross, and how is it woken?
//!
//! Both sides use this room, each its own copy. [`give`] packs a future for the other side, [`Taken`] is one that the other side gave. A
//! waker is lent for the length of a poll; who wants to keep it clones it, and the clone holds whatever its maker's code needs to stay
//! mapped (`keep`): the host holds the generation, a plugin need not hold the host.

use std::any::Any;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};

use crate::wall;
use crate::{self as abi, Outcome, Owner};

/// What must stay alive as long as a waker from the other side does.
pub type Keep = Arc<dyn Any + Send + Sync>;

/// What is given is polled and dropped by the other side's calls.
struct Given<F> {
    future: F,
    // Dropped last.
    keep: Option<Keep>,
}

/// What can be given: a future that needs no pinning, as a boxed one.
pub trait Work: Future<Output = Outcome> + Unpin + Send + 'static {}

impl<F: Future<Output = Outcome> + Unpin + Send + 'static> Work for F {}

/// Polls `future` once with the other side's `waker`; if that isn't enough, packs it so that the other side can go on.
///
/// # Safety
///
/// `waker` must be valid during the call.
pub unsafe fn give(future: impl Work, keep: Option<Keep>, waker: *const abi::Waker) -> Outcome {
    let mut given = Given { future, keep };
    // SAFETY: passed on to the caller.
    match unsafe { given.poll(waker) } {
        Some(outcome) => {
            // Nobody drops it for us: the future's own `Drop` may panic even now.
            wall::guard_drop(given);
            outcome
        }
        None => pack(given),
    }
}

/// Packs a future that hasn't been polled yet.
pub fn give_unpolled(future: impl Work, keep: Option<Keep>) -> Outcome {
    pack(Given { future, keep })
}

fn pack<F: Work>(given: Given<F>) -> Outcome {
    unsafe extern "C" fn poll<F: Work>(data: *mut c_void, waker: *const abi::Waker) -> Outcome {
        // SAFETY: `data` is the owner's, made below; the other side polls from one thread at a time and not after releasing it.
        let given = unsafe { &mut *data.cast::<Given<F>>() };
        // SAFETY: the other side lends the waker for this call.
        unsafe { given.poll(waker) }.unwrap_or_else(|| Outcome::pending(None))
    }
    Outcome::pending(Some((Owner::of(given), poll::<F>)))
}

impl<F: Work> Given<F> {
    /// # Safety
    ///
    /// `waker` must be valid during the call.
    unsafe fn poll(&mut self, waker: *const abi::Waker) -> Option<Outcome> {
        let Given { future, keep } = self;
        // SAFETY: passed on to the caller.
        let polled =
            unsafe { borrow(waker, keep, |waker| wall::guard(|| Pin::new(&mut *future).poll(&mut Context::from_waker(waker)))) };
        match polled {
            Ok(Poll::Ready(outcome)) => Some(outcome),
            Ok(Poll::Pending) => None,
            Err(panic) => Some(Outcome::panicked(panic)),
        }
    }
}

/// A future that the other side gave. Dropping it drops the future there.
#[must_use = "futures do nothing unless polled"]
pub struct Taken {
    owner: Owner,
    poll: abi::PollFn,
}

impl Taken {
    /// The future in `outcome`, if it is pending.
    ///
    /// # Errors
    ///
    /// The outcome itself if there is nothing to wait for.
    pub fn take(outcome: Outcome) -> Result<Self, Outcome> {
        outcome.into_future().map(|(owner, poll)| Self { owner, poll })
    }
}

impl Future for Taken {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = lend(context.waker(), |waker| {
            // SAFETY: owner and function came together from the side that made them; `&mut self` makes this the only poll, and the
            // waker is valid until `lend` returns.
            unsafe { (self.poll)(self.owner.data(), waker) }
        });
        if outcome.kind() == Outcome::PENDING { Poll::Pending } else { Poll::Ready(outcome) }
    }
}

/// Lends `waker` to the other side for the length of `call`. Whoever keeps it clones it.
pub fn lend<R>(waker: &Waker, call: impl FnOnce(&abi::Waker) -> R) -> R {
    /// All data, lent or cloned, points to a `Waker`.
    static VTABLE: abi::WakerVtable = abi::WakerVtable { clone, wake_by_ref, release };

    unsafe extern "C" fn clone(data: *const c_void) -> *const c_void {
        // SAFETY: data is a lent or cloned `Waker` that its holder has not released.
        let waker = unsafe { &*data.cast::<Waker>() };
        wall::guard(|| Box::into_raw(Box::new(waker.clone())).cast_const().cast()).unwrap_or_else(|panic| {
            wall::tell(panic);
            // A waker that can't be cloned is replaced by one that does nothing: its task is lost, the host is not.
            Box::into_raw(Box::new(Waker::noop().clone())).cast_const().cast()
        })
    }

    unsafe extern "C" fn wake_by_ref(data: *const c_void) {
        // SAFETY: as in `clone`.
        let waker = unsafe { &*data.cast::<Waker>() };
        wall::guard_told(|| waker.wake_by_ref());
    }

    unsafe extern "C" fn release(data: *const c_void) {
        // SAFETY: data came from `clone`, whose box is released once.
        wall::guard_drop(unsafe { Box::from_raw(data.cast_mut().cast::<Waker>()) });
    }

    call(&abi::Waker { data: std::ptr::from_ref(waker).cast(), vtable: &VTABLE })
}

struct Borrowed<'a> {
    raw: &'a abi::Waker,
    keep: &'a Option<Keep>,
}

/// A clone of the other side's waker. `Drop` runs before `_keep` goes.
struct Cloned {
    data: *const c_void,
    vtable: *const abi::WakerVtable,
    _keep: Option<Keep>,
}

// SAFETY: the data behind a clone is a `Waker` of the other side, which is `Send + Sync`.
unsafe impl Send for Cloned {}
// SAFETY: as above.
unsafe impl Sync for Cloned {}

impl Wake for Cloned {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // SAFETY: the vtable lives as long as its library, which `_keep` holds.
        let wake = unsafe { (*self.vtable).wake_by_ref };
        // SAFETY: the data was made by the same vtable's `clone` and isn't released before `self` is dropped.
        unsafe { wake(self.data) }
    }
}

impl Drop for Cloned {
    fn drop(&mut self) {
        // SAFETY: the vtable lives as long as its library, which `_keep` still holds.
        let release = unsafe { (*self.vtable).release };
        // SAFETY: the data was made by the same vtable's `clone`, and this is the only release.
        unsafe { release(self.data) }
    }
}

/// Calls `call` with the other side's waker as std's.
///
/// # Safety
///
/// `raw` must be valid during the call.
pub(crate) unsafe fn borrow<R>(raw: *const abi::Waker, keep: &Option<Keep>, call: impl FnOnce(&Waker) -> R) -> R {
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, |_| {});

    unsafe fn clone(data: *const ()) -> RawWaker {
        // SAFETY: data is the `Borrowed` below, alive while the std waker made of it is lent.
        let Borrowed { raw, keep } = unsafe { &*data.cast::<Borrowed<'_>>() };
        // SAFETY: the vtable lives as long as its library, whose poll is on the stack above us.
        let clone = unsafe { (*raw.vtable).clone };
        // SAFETY: data and vtable came together.
        let data = unsafe { clone(raw.data) };
        let waker = Waker::from(Arc::new(Cloned { data, vtable: raw.vtable, _keep: (*keep).clone() }));
        let waker = ManuallyDrop::new(waker);
        RawWaker::new(waker.data(), waker.vtable())
    }

    unsafe fn wake(data: *const ()) {
        // SAFETY: passed on; a borrowed waker owns nothing, so waking by value is waking by reference.
        unsafe { wake_by_ref(data) }
    }

    unsafe fn wake_by_ref(data: *const ()) {
        // SAFETY: data is the `Borrowed` below, alive while the std waker made of it is lent.
        let raw = unsafe { (*data.cast::<Borrowed<'_>>()).raw };
        // SAFETY: the vtable lives as long as its library, whose poll is on the stack above us.
        let wake = unsafe { (*raw.vtable).wake_by_ref };
        // SAFETY: data and vtable came together.
        unsafe { wake(raw.data) }
    }

    // SAFETY: passed on to the caller.
    let borrowed = Borrowed { raw: unsafe { &*raw }, keep };
    // SAFETY: the vtable's functions take a `Borrowed`, which outlives the waker: it is only lent below and cloning makes another kind.
    let waker = unsafe { Waker::new(std::ptr::from_ref(&borrowed).cast(), &VTABLE) };
    call(&waker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// Pending once; hands its waker to `stolen`.
    struct Once(Arc<std::sync::Mutex<Option<Waker>>>, bool);

    impl Future for Once {
        type Output = Outcome;
        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
            if std::mem::replace(&mut self.1, true) {
                return Poll::Ready(Outcome::done());
            }
            *self.0.lock().expect("a lock") = Some(context.waker().clone());
            Poll::Pending
        }
    }

    #[test]
    fn a_waker_that_was_kept_wakes_and_holds_what_its_code_needs() {
        let (count, stolen, keep) = (Arc::new(Count::default()), Arc::default(), Arc::new(()));
        let mut taken =
            Taken::take(give_unpolled(Box::pin(Once(Arc::clone(&stolen), false)), Some(keep.clone()))).ok().expect("pending");
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut taken).poll(&mut context).is_pending());
        let kept = stolen.lock().expect("a lock").take().expect("a waker");
        kept.wake_by_ref();
        let second = kept.clone();
        second.wake_by_ref();
        assert_eq!(count.0.load(SeqCst), 2);
        assert!(matches!(Pin::new(&mut taken).poll(&mut context), Poll::Ready(outcome) if outcome.kind() == Outcome::DONE));
        drop(taken);
        assert_eq!(Arc::strong_count(&keep), 2, "the waker alone still holds it");
        drop((kept, second));
        assert_eq!(Arc::strong_count(&keep), 1);
    }

    #[test]
    fn a_panic_in_a_poll_and_one_in_drop_are_values_or_nothing() {
        struct Bad;
        impl Future for Bad {
            type Output = Outcome;
            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Outcome> {
                panic!("in poll")
            }
        }
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("in drop")
            }
        }
        let mut taken = Taken::take(give_unpolled(Box::pin(Bad), None)).ok().expect("pending");
        let polled = Pin::new(&mut taken).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(outcome) if outcome.kind() == Outcome::PANIC && outcome.text() == "in poll"));
        drop(taken);
    }
    #[test]
    fn a_future_that_was_ready_at_once_may_panic_in_its_drop() {
        struct Ready;
        impl Future for Ready {
            type Output = Outcome;
            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Outcome> {
                Poll::Ready(Outcome::done())
            }
        }
        impl Drop for Ready {
            fn drop(&mut self) {
                panic!("in drop")
            }
        }
        // SAFETY: the waker is lent for this call.
        let outcome = lend(Waker::noop(), |waker| unsafe { give(Box::pin(Ready), None, waker) });
        assert_eq!(outcome.kind(), Outcome::DONE);
    }
}
