//! How is an answer waited for that the disk has yet to give?

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use midair_abi::store::{Answer, Refusal};
use parking_lot::Mutex;

#[derive(Default)]
struct Slip(Mutex<(Option<Answer>, Option<Waker>)>);

/// An answer that will come.
pub(crate) struct Pending(Arc<Slip>);

/// The duty to answer. Dropped without an answer, it says that there is none.
pub(super) struct Promise(Option<Arc<Slip>>);

/// Both ends.
pub(super) fn pending() -> (Promise, Pending) {
    let slip = Arc::new(Slip::default());
    (Promise(Some(Arc::clone(&slip))), Pending(slip))
}

impl Promise {
    /// Answers, and wakes whoever waits on this thread.
    pub(super) fn keep(mut self, answer: Option<Answer>) {
        self.give(answer.unwrap_or_else(nothing));
    }

    fn give(&mut self, answer: Answer) {
        let Some(slip) = self.0.take() else { return };
        let waker = {
            let mut slip = slip.0.lock();
            slip.0 = Some(answer);
            slip.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn nothing() -> Answer {
    Err(Refusal::Failed("nobody writes any more, so nothing was written".to_owned()))
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.give(nothing());
    }
}

impl Pending {
    /// The answer, waited for on this thread.
    #[cfg(any(test, feature = "http"))]
    pub(super) fn wait(mut self) -> Answer {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut self).poll(&mut Context::from_waker(&waker)) {
                return answer;
            }
            std::thread::park();
        }
    }
}

impl Future for Pending {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let mut slip = self.0.0.lock();
        if let Some(answer) = slip.0.take() {
            return Poll::Ready(answer);
        }
        if !slip.1.as_ref().is_some_and(|there| there.will_wake(context.waker())) {
            // The one before is dropped when the lock is open again: it may be a plugin's.
            let before = slip.1.replace(context.waker().clone());
            drop(slip);
            drop(before);
        }
        Poll::Pending
    }
}
