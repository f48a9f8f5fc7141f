//! How does the process end while plugins may be stuck, and what if one of them ends it?
//!
//! `exit` runs the destructors of all loaded libraries and waits for the loader's lock, which a plugin that is stuck while it is opened
//! holds for ever. So does every thread that sets up a thread-local with a destructor for the first time, wherever in std or a library that
//! happens. What the host has to put away it puts away before; if it gets stuck on the way, a [`Fuse`] ends it.
//!
//! So a host never calls `exit` itself, and whoever calls it is code of a plugin. To what restarts services its `exit(0)` would look like an
//! end in good order, so [`watch`] gives it a status of its own.

use std::ffi::{c_int, c_void};
use std::fmt::Write as _;
use std::io;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The status of a client whose change was refused: what served before keeps serving.
pub(super) const REFUSED: i32 = 3;

/// Ends the process at once, running nothing.
pub(crate) fn now(status: i32) -> ! {
    // SAFETY: `_exit` has no conditions; nothing of this process runs after it.
    unsafe { libc::_exit(status) }
}

/// The status of a process that code of a plugin ended by `exit`.
pub(crate) const BY_A_PLUGIN: i32 = 71;

/// Whose process it is, and what serves in it.
struct Watched {
    process: u32,
    serving: Box<dyn Fn() -> Vec<String> + Send + Sync>,
}

static WATCHED: OnceLock<Watched> = OnceLock::new();

unsafe extern "C" {
    /// glibc's: as `atexit`, with the status that `exit` was called with.
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
}

/// From now on an `exit` of this process is said on standard error, with what is `serving`, and ends it with [`BY_A_PLUGIN`].
///
/// # Errors
///
/// If the system has no memory for that.
pub(crate) fn watch(serving: impl Fn() -> Vec<String> + Send + Sync + 'static) -> io::Result<()> {
    let watched = Watched { process: std::process::id(), serving: Box::new(serving) };
    if WATCHED.set(watched).is_err() {
        return Ok(());
    }
    // SAFETY: the function is this program's own code, which is there until the process ends, uses no argument and doesn't unwind: all that could
    // panic in it is caught.
    let registered = unsafe { on_exit(left, ptr::null_mut()) };
    if registered == 0 { Ok(()) } else { Err(io::Error::from(io::ErrorKind::OutOfMemory)) }
}

/// Runs within `exit`, on the thread that called it, behind the destructors of that thread and what plugins registered. Takes no lock that
/// another thread may hold.
extern "C" fn left(status: c_int, _: *mut c_void) {
    let Some(Watched { process, serving }) = WATCHED.get() else { return };
    if *process != std::process::id() {
        // A plugin forked, and its child ends as it likes.
        return;
    }
    let mut line =
        format!("error: code of a plugin ended the process: it called exit({status}), which ends the host amid requests");
    if let Ok(serving) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(serving))
        && !serving.is_empty()
    {
        // Writing to a string can't fail.
        let _ = write!(line, "; serving: {}", serving.join(", "));
    }
    line.push_str("\n  help: a plugin returns an error instead; what ends a program has no place in it\n");
    // Where stderr is gone, the status still tells.
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
    now(BY_A_PLUGIN);
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
