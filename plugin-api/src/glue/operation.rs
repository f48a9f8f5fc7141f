//! How is something awaited in a handler that isn't async?

use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Something that the host does. Await it, or [`wait`](Self::wait) for it in a handler that isn't async.
#[must_use = "nothing happens before it is awaited or waited for"]
pub struct Operation<F>(F);

impl<F: Future> Operation<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(future)
    }

    /// Blocks the thread until it is done. In an async handler use `.await`, since the thread may serve others meanwhile.
    pub fn wait(self) -> F::Output {
        block_on(self.0)
    }
}

impl<F: Future> Future for Operation<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the field is pinned as `self` is: it is never moved out, and there is no `Drop` or `Unpin` of ours.
        unsafe { self.map_unchecked_mut(|operation| &mut operation.0) }.poll(context)
    }
}

/// Wakes a thread that waits in [`block_on`]. Not `thread::park`: asking for the current thread would make std set up thread-local data
/// with a destructor, which ties the plugin's code to the life of the host's threads.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ring.notify_one();
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    // What is ready at once, as with state in memory, needs no bell.
    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return output;
    }
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let rung = bell.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = bell.ring.wait_while(rung, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}
