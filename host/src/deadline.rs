//! How long may a call into a plugin take?
//!
//! Each call that the journey makes into a plugin runs on a thread of its own, which is given up when the deadline passes: nobody can end
//! it, and what it holds stays, but the journey goes on.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrun {
    /// It still runs; its thread was given up.
    Deadline(Duration),
    /// No thread could be had, or it ended without a result.
    NoThread,
}

/// Runs `call` on a thread named `name` and waits for it until the deadline.
///
/// # Errors
///
/// [`Overrun`]; what `call` owns is then dropped whenever it ends.
pub fn within<T: Send + 'static>(name: &str, deadline: Duration, call: impl FnOnce() -> T + Send + 'static) -> Result<T, Overrun> {
    let (done, result) = channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody listens any more if it comes too late.
        let _ = done.send(call());
    });
    if thread.is_err() {
        return Err(Overrun::NoThread);
    }
    result.recv_timeout(deadline).map_err(|error| match error {
        RecvTimeoutError::Timeout => Overrun::Deadline(deadline),
        RecvTimeoutError::Disconnected => Overrun::NoThread,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_given_up_and_what_ends_is_told() {
        let (_hold, wait) = channel::<()>();
        let stuck = within("stuck", Duration::from_millis(1), move || wait.recv().is_ok());
        assert_eq!(stuck, Err(Overrun::Deadline(Duration::from_millis(1))));
        assert_eq!(within("quick", Duration::from_secs(60), || 7), Ok(7));
    }
}
