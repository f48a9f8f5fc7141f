//! Whose atomics?
//!
//! The lock-free rooms take them from here, so that a model checker runs the very code that ships: `--cfg midair_loom` swaps std for loom.
//!
//! arc-swap can't be modelled. In a model a lock stands in its place, which promises what it promises: a load sees the last swap, and what
//! was loaded stays. That arc-swap keeps that promise is tested by stress, in `slot`.

#[cfg(not(midair_loom))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
    pub(crate) use std::thread_local;

    use std::sync::Arc;

    /// What a load of a [`Pointer`] gives.
    pub(crate) type Guard<S> = arc_swap::Guard<Arc<S>>;

    /// A pointer that is replaced while others follow it.
    pub(crate) struct Pointer<S>(arc_swap::ArcSwap<S>);

    impl<S> Pointer<S> {
        #[must_use]
        pub(crate) fn new(to: Arc<S>) -> Self {
            Self(arc_swap::ArcSwap::new(to))
        }

        #[must_use]
        pub(crate) fn load(&self) -> Guard<S> {
            self.0.load()
        }

        #[must_use]
        pub(crate) fn load_full(&self) -> Arc<S> {
            self.0.load_full()
        }

        pub(crate) fn swap(&self, to: Arc<S>) -> Arc<S> {
            self.0.swap(to)
        }
    }
}

#[cfg(midair_loom)]
mod real {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
    pub(crate) use loom::thread_local;

    use std::ops::Deref;
    use std::sync::Arc;

    use loom::sync::Mutex;

    /// What a load of a [`Pointer`] gives.
    pub(crate) struct Guard<S>(Arc<S>);

    impl<S> Guard<S> {
        pub(crate) fn into_inner(guard: Self) -> Arc<S> {
            guard.0
        }
    }

    impl<S> Deref for Guard<S> {
        type Target = Arc<S>;

        fn deref(&self) -> &Arc<S> {
            &self.0
        }
    }

    /// A pointer that is replaced while others follow it.
    pub(crate) struct Pointer<S>(Mutex<Arc<S>>);

    impl<S> Pointer<S> {
        pub(crate) fn new(to: Arc<S>) -> Self {
            Self(Mutex::new(to))
        }

        pub(crate) fn load(&self) -> Guard<S> {
            Guard(self.load_full())
        }

        pub(crate) fn load_full(&self) -> Arc<S> {
            Arc::clone(&self.0.lock().expect("a model breaks where it panics"))
        }

        pub(crate) fn swap(&self, to: Arc<S>) -> Arc<S> {
            std::mem::replace(&mut *self.0.lock().expect("a model breaks where it panics"), to)
        }
    }
}

pub(crate) use real::*;
