//! Which tokio do a plugin's futures find?
//!
//! With the feature `tokio` each generation has a runtime of its own, which is entered wherever the plugin's code runs: so what needs a
//! reactor works in handlers as it does elsewhere. It lives as long as the generation: made with the plugin, so that a host that has no room
//! for it hears of that before publish, and ended after the last lease, with all that still runs on it. Without the feature all of this is
//! nothing.

use std::pin::Pin;
use std::task::{Context, Poll};

#[cfg(feature = "tokio")]
mod tokio_runtime {
    use std::ptr::null_mut;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicPtr, Ordering};
    use std::time::Duration;

    use tokio::runtime::{Builder, EnterGuard, Handle};

    /// Threads, unless the plugin says how many.
    const THREADS: usize = 2;

    /// How long the end waits for blocking work. Its threads aren't waited for any longer, and show in the census.
    const END: Duration = Duration::from_secs(5);

    /// One generation, one copy of this library, one runtime. Null where there is none. It isn't a `OnceLock`: a handle that stays keeps the
    /// runtime's descriptors open.
    static HANDLE: AtomicPtr<Handle> = AtomicPtr::new(null_mut());

    /// A generation's runtime; dropped, it ends.
    pub(crate) struct Runtime(Option<tokio::runtime::Runtime>);

    impl Runtime {
        /// # Panics
        ///
        /// If the system gives no threads or descriptors for it.
        pub(crate) fn start(threads: Option<usize>) -> Self {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads.unwrap_or(THREADS)).thread_name("plugin-tokio").enable_all();
            let runtime = builder.build().unwrap_or_else(|error| panic!("its tokio runtime can't be started: {error}"));
            // One library, one plugin: there was none before.
            HANDLE.store(Box::into_raw(Box::new(runtime.handle().clone())), Ordering::Release);
            Self(Some(runtime))
        }
    }

    impl Drop for Runtime {
        fn drop(&mut self) {
            self.0.take().into_iter().for_each(|runtime| runtime.shutdown_timeout(END));
            let handle = HANDLE.swap(null_mut(), Ordering::AcqRel);
            if !handle.is_null() {
                // SAFETY: it came from `Box::into_raw`, and the swap makes this its only end. Nobody has it by `enter`: whoever enters holds
                // the generation, which is being dropped.
                drop(unsafe { Box::from_raw(handle) });
            }
        }
    }

    /// The one runtime of all plugins that a process tests.
    pub(crate) fn start_for_tests(threads: Option<usize>) {
        static RUNTIME: OnceLock<Runtime> = OnceLock::new();
        RUNTIME.get_or_init(|| Runtime::start(threads));
    }

    /// Until it is dropped, this thread is in the plugin's runtime.
    pub(crate) struct Entered {
        _guard: Option<EnterGuard<'static>>,
    }

    pub(crate) fn enter() -> Entered {
        let handle = HANDLE.load(Ordering::Acquire);
        if handle.is_null() {
            return Entered { _guard: None };
        }
        // SAFETY: it is freed when the generation is dropped, which everybody holds who calls or drops something of the plugin's. In tests it
        // is never freed.
        let handle: &'static Handle = unsafe { &*handle };
        Entered { _guard: Some(handle.enter()) }
    }
}

#[cfg(not(feature = "tokio"))]
mod tokio_runtime {
    pub(crate) struct Runtime;

    impl Runtime {
        pub(crate) fn start(_: Option<usize>) -> Self {
            Self
        }
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
