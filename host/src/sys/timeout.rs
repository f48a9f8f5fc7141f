//! How long may a call into a plugin take?
//!
//! Each call that the journey makes into a plugin runs on a thread of its own, which is given up when the deadline passes: nobody can end
//! it, and what it holds stays, but the journey goes on. A result that comes too late is dropped on that thread too, since dropping it may
//! be the plugin's code.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overrun {
    /// It still runs; its thread was given up.
    Deadline(Duration),
    /// No thread could be had, so it never ran; what it owned is leaked, as dropping it may be the plugin's code.
    NoThread,
    /// Its thread ended without a result.
    Broke,
}

enum Hand<T> {
    Waiting,
    Done(T),
    Broke,
    /// Nobody waits any more.
    Abandoned,
}

/// Where a result is handed over, or not.
struct Desk<T>(Mutex<Hand<T>>, Condvar);

/// Tells the desk how the thread ended, also if it panicked.
struct Turn<T>(Arc<Desk<T>>, Option<T>);

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        let mut hand = self.0.0.lock();
        if matches!(*hand, Hand::Abandoned) {
            drop(hand);
            // Late: dropped here, on the thread that was given up.
            self.1.take();
            return;
        }
        *hand = self.1.take().map_or(Hand::Broke, Hand::Done);
        self.0.1.notify_one();
    }
}

/// Runs `call` on a thread named `name` and waits for it until the deadline.
///
/// # Errors
///
/// [`Overrun`]; what `call` owns is then dropped on its own thread, whenever it ends.
pub(crate) fn within<T: Send + 'static>(
    name: &str,
    deadline: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Overrun> {
    let until = Instant::now() + deadline;
    let desk = Arc::new(Desk(Mutex::new(Hand::Waiting), Condvar::new()));
    let theirs = Arc::clone(&desk);
    // The call is handed over only once there is a thread: a closure that never got one would be dropped here.
    let (give, take) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let mut turn = Turn(theirs, None);
        if let Ok(call) = take.recv() {
            turn.1 = Some(std::convert::identity::<Box<dyn FnOnce() -> T + Send>>(call)());
        }
    });
    let call: Box<dyn FnOnce() -> T + Send> = Box::new(call);
    if thread.is_err() {
        std::mem::forget(call);
        return Err(Overrun::NoThread);
    }
    if let Err(unsent) = give.send(call) {
        std::mem::forget(unsent);
        return Err(Overrun::Broke);
    }
    let mut hand = desk.0.lock();
    while matches!(*hand, Hand::Waiting) {
        if desk.1.wait_until(&mut hand, until).timed_out() {
            break;
        }
    }
    match std::mem::replace(&mut *hand, Hand::Abandoned) {
        Hand::Done(result) => Ok(result),
        Hand::Broke => Err(Overrun::Broke),
        Hand::Waiting | Hand::Abandoned => Err(Overrun::Deadline(deadline)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_secs(60);

    /// Says on which thread it was dropped.
    struct Told(std::sync::mpsc::Sender<Option<String>>);

    impl Drop for Told {
        fn drop(&mut self) {
            // The test may have ended.
            let _ = self.0.send(std::thread::current().name().map(str::to_owned));
        }
    }

    #[test]
    fn what_never_ends_is_given_up_and_what_ends_is_told() {
        let (_hold, wait) = channel::<()>();
        assert_eq!(within("stuck", SOON, move || wait.recv().is_ok()), Err(Overrun::Deadline(SOON)));
        assert_eq!(within("quick", LATE, || 7), Ok(7));
        assert_eq!(within("broken", LATE, || -> u8 { std::panic::resume_unwind(Box::new(())) }), Err(Overrun::Broke));
    }

    #[test]
    fn a_result_that_comes_too_late_is_dropped_on_the_thread_that_made_it() {
        let (dropped, drops) = channel();
        let (go, wait) = channel::<()>();
        let late = within("late", SOON, move || {
            let _ = wait.recv();
            Told(dropped)
        });
        assert!(matches!(late, Err(Overrun::Deadline(_))));
        go.send(()).expect("it waits");
        assert_eq!(drops.recv_timeout(LATE), Ok(Some("late".to_owned())));
    }
}
