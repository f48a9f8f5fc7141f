//! Which tokio do a plugin's futures find?
//!
//! With the feature `tokio` each generation has a runtime of its own, which is entered wherever the plugin's code runs: so what needs a
//! reactor works in handlers as it does elsewhere. It lives as long as the generation: made with the plugin, so that a host that has no room
//! for it hears of that before publish, and ended after the last lease, with all that still runs on it. Without the feature all of this is
//! nothing. A host that was built with the same feature never starts one.

#[cfg(feature = "tokio")]
mod tokio_runtime {
    use std::sync::OnceLock;
    use std::time::Duration;

    use tokio::runtime::{Builder, EnterGuard, Handle};

    /// How long the end waits for blocking work. Its threads aren't waited for any longer, and show in the census.
    const END: Duration = Duration::from_secs(5);

    /// One generation, one copy of this library, one runtime.
    static HANDLE: OnceLock<Handle> = OnceLock::new();

    /// A generation's runtime; dropped, it ends.
    pub(crate) struct Runtime(Option<tokio::runtime::Runtime>);

    impl Runtime {
        /// # Panics
        ///
        /// If the system gives no threads or descriptors for it.
        pub(crate) fn start(threads: usize) -> Self {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads).thread_name("plugin-tokio").enable_all();
            let runtime = builder.build().unwrap_or_else(|error| panic!("its tokio runtime can't be started: {error}"));
            // One library, one plugin: it is set once.
            let _ = HANDLE.set(runtime.handle().clone());
            Self(Some(runtime))
        }
    }

    impl Drop for Runtime {
        fn drop(&mut self) {
            self.0.take().into_iter().for_each(|runtime| runtime.shutdown_timeout(END));
        }
    }

    /// The one runtime of all plugins that a process tests.
    pub(crate) fn start_for_tests(threads: usize) {
        static RUNTIME: OnceLock<Runtime> = OnceLock::new();
        RUNTIME.get_or_init(|| Runtime::start(threads));
    }

    /// Until it is dropped, this thread is in the plugin's runtime.
    pub(crate) struct Entered {
        _guard: Option<EnterGuard<'static>>,
    }

    pub(crate) fn enter() -> Entered {
        Entered { _guard: HANDLE.get().map(Handle::enter) }
    }
}

#[cfg(not(feature = "tokio"))]
mod tokio_runtime {
    pub(crate) struct Runtime;

    impl Runtime {
        pub(crate) fn start(_: usize) -> Self {
            Self
        }
    }

    pub(crate) fn start_for_tests(_: usize) {}

    pub(crate) struct Entered;

    pub(crate) fn enter() -> Entered {
        Entered
    }
}

pub(crate) use tokio_runtime::{Runtime, enter, start_for_tests};
