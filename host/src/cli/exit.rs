//! How does the process end while plugins may be stuck?
//!
//! `exit` runs the destructors of all loaded libraries and waits for the loader's lock, which a plugin that is stuck while it is opened
//! holds for ever. So does every thread that sets up a thread-local with a destructor for the first time, wherever in std or a library that
//! happens. What the host has to put away it puts away before; if it gets stuck on the way, a [`Fuse`] ends it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The status of a client whose change was refused: what served before keeps serving.
pub(super) const REFUSED: i32 = 3;

/// Ends the process at once, running nothing.
pub(crate) fn now(status: i32) -> ! {
    // SAFETY: `_exit` has no conditions; nothing of this process runs after it.
    unsafe { libc::_exit(status) }
}

/// Ends the process some time after it was lit, whatever the other threads are stuck in.
pub(crate) struct Fuse(Arc<Lit>);

/// When to end and with which status, once it is known.
type Lit = (Mutex<Option<(Instant, i32)>>, Condvar);

impl Fuse {
    /// Lays the fuse: starts its thread, which must be done before any plugin is opened.
    ///
    /// # Errors
    ///
    /// If no thread can be had.
    pub(crate) fn lay() -> io::Result<Self> {
        let lit = Arc::new(Lit::default());
        let waits = Arc::clone(&lit);
        let wait = move || {
            // std's lock and condition are bare futexes: waiting on them sets up no thread-local.
            let (until, changed) = &*waits;
            let mut until = until.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                until = match *until {
                    None => changed.wait(until).unwrap_or_else(PoisonError::into_inner),
                    Some((end, status)) => match end.checked_duration_since(Instant::now()) {
                        None => now(status),
                        Some(left) => changed.wait_timeout(until, left).unwrap_or_else(PoisonError::into_inner).0,
                    },
                };
            }
        };
        std::thread::Builder::new().name("midair-fuse".to_owned()).spawn(wait)?;
        Ok(Self(lit))
    }

    /// Ends the process after `delay`.
    pub(crate) fn light(&self, delay: Duration, status: i32) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now() + delay, status));
        self.0.1.notify_one();
    }
}
