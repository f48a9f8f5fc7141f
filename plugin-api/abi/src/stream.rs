//! How does a body cross in pieces?
//!
//! Both sides use this room, each its own copy, as they do `task`. [`give`] and [`pieces`] pack what makes a body, [`Pieces`] is a body that
//! the other side makes. Nothing is made before it is asked for: whoever takes slowly is served slowly. A body that is dropped is dropped
//! where it is made.

use std::ffi::c_void;
use std::task::{Context, Poll};

use crate::task::{Keep, borrow, lend};
use crate::wall;
use crate::{self as abi, Outcome, Owner};

/// Makes a body: a `CHUNK` each time that it is asked, then `DONE`; or an `ERROR`, after which nothing follows.
pub type Source = Box<dyn FnMut(&mut Context<'_>) -> Poll<Outcome> + Send>;

struct Given {
    /// None once the body is over.
    source: Option<Source>,
    keep: Option<Keep>,
    /// What owns the head that the body belongs to.
    _head: Owner,
}

/// `head`, a response, with a body that `source` makes. `keep` is what must stay as long as a waker of the other side does.
#[must_use]
pub fn give(head: Outcome, source: Source, keep: Option<Keep>) -> Outcome {
    head.followed_by(|head| (Owner::of(Given { source: Some(source), keep, _head: head }), poll))
}

/// A body that `source` makes, for a request.
pub fn pieces(source: Source, keep: Option<Keep>) -> Pieces {
    Pieces { owner: Owner::of(Given { source: Some(source), keep, _head: Owner::NONE }), poll }
}

unsafe extern "C" fn poll(data: *mut c_void, waker: *const abi::Waker) -> Outcome {
    // SAFETY: `data` is the owner's, made above; the other side polls from one thread at a time and not after releasing it.
    let Given { source, keep, .. } = unsafe { &mut *data.cast::<Given>() };
    let Some(next) = source else { return Outcome::done() };
    // SAFETY: the other side lends the waker for this call.
    let polled = unsafe { borrow(waker, keep, |waker| wall::guard(|| next(&mut Context::from_waker(waker)))) };
    let end = match polled {
        Ok(Poll::Pending) => return Outcome::pending(None),
        Ok(Poll::Ready(chunk)) if chunk.kind() == Outcome::CHUNK => return chunk,
        Ok(Poll::Ready(end)) => end,
        Err(panic) => Outcome::panicked(panic),
    };
    // What it holds goes now: the other side may keep the empty shell for as long as it likes.
    wall::guard_drop(source.take());
    end
}

/// A body that the other side makes. Dropping it drops what makes it there.
#[must_use = "a body that is dropped is given up"]
pub struct Pieces {
    owner: Owner,
    poll: abi::PollFn,
}

impl Pieces {
    /// The body of a response that goes on.
    ///
    /// # Errors
    ///
    /// The response itself if its body is whole.
    pub fn take(response: Outcome) -> Result<Self, Outcome> {
        response.into_body().map(|(owner, poll)| Self { owner, poll })
    }

    /// The body of a request, if it comes in pieces; once.
    pub fn take_of(request: &mut abi::Request) -> Option<Self> {
        request.take_rest().map(|(owner, poll)| Self { owner, poll })
    }

    /// `request` with this body.
    #[must_use]
    pub fn give_with(self, request: abi::Request) -> abi::Request {
        request.followed_by((self.owner, self.poll))
    }

    /// The next piece, as `CHUNK`; `DONE` at the end, or what went wrong.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = lend(context.waker(), |waker| {
            // SAFETY: owner and function came together from the side that made them; `&mut self` makes this the only poll, and the
            // waker is valid until `lend` returns.
            unsafe { (self.poll)(self.owner.data(), waker) }
        });
        if outcome.kind() == Outcome::PENDING { Poll::Pending } else { Poll::Ready(outcome) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::Waker;

    use super::*;

    /// Adds one when it is dropped.
    struct Dropped(Arc<AtomicUsize>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// A body of what `next` makes of the number of each poll, and how often its source was dropped.
    fn body(mut next: impl FnMut(usize) -> Poll<Outcome> + Send + 'static) -> (Outcome, Arc<AtomicUsize>) {
        let drops = Arc::new(AtomicUsize::new(0));
        let (held, mut asked) = (Dropped(Arc::clone(&drops)), 0);
        let source = Box::new(move |_: &mut Context<'_>| {
            let _held = &held;
            asked += 1;
            next(asked)
        });
        (give(Outcome::response(201, vec![("x-one", "1")], "never seen"), source, None), drops)
    }

    fn next(pieces: &mut Pieces) -> Option<(u32, String)> {
        match pieces.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => None,
            Poll::Ready(outcome) => Some((outcome.kind(), outcome.text())),
        }
    }

    #[test]
    fn pieces_come_when_asked_for_and_the_source_goes_at_the_end() {
        let (outcome, drops) = body(|asked| match asked {
            1 => Poll::Ready(Outcome::chunk("one")),
            2 => Poll::Pending,
            3 => Poll::Ready(Outcome::chunk(vec![b't', b'w', b'o'])),
            _ => Poll::Ready(Outcome::done()),
        });
        assert!(outcome.is_streamed() && outcome.status() == 201);
        assert_eq!(outcome.pairs().collect::<Vec<_>>(), [("x-one", &b"1"[..])]);
        let mut pieces = Pieces::take(outcome).ok().expect("a body");
        assert_eq!(next(&mut pieces), Some((Outcome::CHUNK, "one".to_owned())));
        assert_eq!(next(&mut pieces), None);
        assert_eq!(next(&mut pieces), Some((Outcome::CHUNK, "two".to_owned())));
        assert_eq!(drops.load(SeqCst), 0);
        assert_eq!(next(&mut pieces), Some((Outcome::DONE, String::new())));
        assert_eq!(drops.load(SeqCst), 1);
        assert_eq!(next(&mut pieces), Some((Outcome::DONE, String::new())), "it stays at its end");
        drop(pieces);
        assert_eq!(drops.load(SeqCst), 1);
    }

    #[test]
    fn a_body_that_is_given_up_is_dropped_and_a_piece_outlives_it() {
        let (outcome, drops) = body(|_| Poll::Ready(Outcome::chunk("more")));
        let mut pieces = Pieces::take(outcome).ok().expect("a body");
        let Poll::Ready(kept) = pieces.poll_next(&mut Context::from_waker(Waker::noop())) else { panic!("it is there") };
        drop(pieces);
        assert_eq!((drops.load(SeqCst), kept.text().as_str()), (1, "more"));
    }

    #[test]
    fn a_panic_ends_a_body_as_a_value_and_so_does_one_in_its_drop() {
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("in drop")
            }
        }
        let bad = Bad;
        let source: Source = Box::new(move |_| {
            let _bad = &bad;
            panic!("in poll")
        });
        let mut pieces = pieces(source, None);
        assert_eq!(next(&mut pieces), Some((Outcome::PANIC, "in poll".to_owned())));
        assert_eq!(next(&mut pieces), Some((Outcome::DONE, String::new())));
    }

    #[test]
    fn a_whole_response_is_no_body_in_pieces() {
        let whole = Outcome::response(200, Vec::<(String, String)>::new(), "whole");
        assert!(!whole.is_streamed());
        assert_eq!(Pieces::take(whole).err().map(|outcome| outcome.text()).as_deref(), Some("whole"));
    }
}
