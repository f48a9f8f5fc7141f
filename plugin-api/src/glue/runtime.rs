//! Which tokio do a plugin's futures find?
//!
//! With the feature `tokio` each generation has a runtime of its own, which is entered wherever the plugin's code runs: so what needs a
//! reactor works in handlers as it does elsewhere. It lives longer than all else of the generation: it is made before the plugin's function runs, so
//! that a host that has no room for it hears of that before publish; after the last lease the plugin's values are dropped inside of it, and then
//! it ends, with all that still runs on it. Without the feature all of this is nothing.

use std::pin::Pin;
use std::task::{Context, Poll};

#[cfg(feature = "tokio")]
mod tokio_runtime {
    use std::ptr::null_mut;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicPtr, Ordering};
    use std::time::Duration;

    use midair_abi::wall;
    use tokio::runtime::{Builder, EnterGuard, Handle};

    /// Threads, unless the plugin says how many.
    const THREADS: usize = 2;

    /// How long the end waits for blocking work. Its threads aren't waited for any longer, and show in the census.
    const END: Duration = Duration::from_secs(5);

    /// One generation, one copy of this library, one runtime. Null where there is none. It isn't a `OnceLock`: a handle that stays keeps the
    /// runtime's descriptors open.
    static HANDLE: AtomicPtr<Handle> = AtomicPtr::new(null_mut());

    /// A generation's runtime; dropped, it ends.
    pub(crate) struct Runtime {
        /// The one that is entered is the last.
        all: Vec<tokio::runtime::Runtime>,
    }

    impl Runtime {
        /// # Panics
        ///
        /// If the system gives no threads or descriptors for it.
        pub(crate) fn start() -> Self {
            let mut runtime = Self { all: Vec::new() };
            runtime.enter_one_of(THREADS);
            runtime
        }

        /// It has so many threads from now on, if the plugin says how many. What the plugin's function spawned before it said so stays where it
        /// is.
        ///
        /// # Panics
        ///
        /// As [`start`](Self::start).
        pub(crate) fn resize(&mut self, threads: Option<usize>) {
            threads.filter(|threads| *threads != THREADS).into_iter().for_each(|threads| self.enter_one_of(threads));
        }

        fn enter_one_of(&mut self, threads: usize) {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads).thread_name("plugin-tokio").enable_all();
            let runtime = builder.build().unwrap_or_else(|error| panic!("its tokio runtime can't be started: {error}"));
            leave(HANDLE.swap(Box::into_raw(Box::new(runtime.handle().clone())), Ordering::AcqRel));
            self.all.push(runtime);
        }
    }

    impl Drop for Runtime {
        fn drop(&mut self) {
            self.all.drain(..).for_each(|runtime| runtime.shutdown_timeout(END));
            leave(HANDLE.swap(null_mut(), Ordering::AcqRel));
        }
    }

    fn leave(handle: *mut Handle) {
        if !handle.is_null() {
            // SAFETY: it came from `Box::into_raw`, and who swapped it out is its only end. Nobody has it by `enter`: whoever enters holds the
            // generation, which is being made or dropped.
            drop(unsafe { Box::from_raw(handle) });
        }
    }

    /// The one runtime of all plugins that a process tests.
    pub(crate) fn start_for_tests(threads: Option<usize>) {
        static RUNTIME: OnceLock<Runtime> = OnceLock::new();
        RUNTIME.get_or_init(|| {
            let mut runtime = Runtime::start();
            runtime.resize(threads);
            runtime
        });
    }

    /// Until it is dropped, this thread is in the plugin's runtime.
    pub(crate) struct Entered {
        guard: Option<EnterGuard<'static>>,
    }

    pub(crate) fn enter() -> Entered {
        let handle = HANDLE.load(Ordering::Acquire);
        if handle.is_null() {
            return Entered { guard: None };
        }
        // SAFETY: it is freed when the generation is dropped, which everybody holds who calls or drops something of the plugin's. In tests it
        // is never freed.
        let handle: &'static Handle = unsafe { &*handle };
        Entered { guard: Some(handle.enter()) }
    }

    impl Drop for Entered {
        /// A plugin that entered by itself and never leaves makes tokio panic here, outside of what is walled in.
        fn drop(&mut self) {
            wall::guard_drop(self.guard.take());
        }
    }
}

#[cfg(not(feature = "tokio"))]
mod tokio_runtime {
    pub(crate) struct Runtime;

    impl Runtime {
        pub(crate) fn start() -> Self {
            Self
        }

        #[expect(clippy::unused_self, clippy::needless_pass_by_ref_mut, reason = "as with the feature")]
        pub(crate) fn resize(&mut self, _: Option<usize>) {}
    }

    pub(crate) fn start_for_tests(_: Option<usize>) {}

    pub(crate) struct Entered;

    pub(crate) fn enter() -> Entered {
        Entered
    }
}

pub(crate) use tokio_runtime::{Runtime, enter, start_for_tests};

/// Something of the plugin's that the host polls and drops when it likes: its runtime is entered for both.
pub(crate) struct Inside<T> {
    /// Taken by `Drop` alone.
    inner: Option<T>,
}

impl<T> Inside<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner: Some(inner) }
    }

    /// Runs `call` in the runtime; `None` of what is being dropped.
    pub(crate) fn run<R>(&mut self, call: impl FnOnce(&mut T) -> R) -> Option<R> {
        let _entered = enter();
        self.inner.as_mut().map(call)
    }
}

impl<T> Drop for Inside<T> {
    fn drop(&mut self) {
        let _entered = enter();
        drop(self.inner.take());
    }
}

impl<F: Future + Unpin> Future for Inside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.run(|future| Pin::new(future).poll(context)).unwrap_or(Poll::Pending)
    }
}
