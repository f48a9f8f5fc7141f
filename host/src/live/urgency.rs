//! Does somebody wait to go back?
//!
//! A cutover that may wait for a little while, as what `init` wrote isn't there yet, stops waiting as soon as a rollback wants its turn: going
//! back waits for no disk.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Who is in a hurry.
#[derive(Default)]
pub(crate) struct Urgency {
    waiting: Mutex<usize>,
    moved: Condvar,
}

/// Somebody who waits for their turn.
pub(crate) struct Waits<'a>(&'a Urgency);

impl Urgency {
    /// Somebody waits until this is dropped.
    #[must_use]
    pub(crate) fn waits(&self) -> Waits<'_> {
        *self.waiting.lock() += 1;
        self.moved.notify_all();
        Waits(self)
    }

    /// What somebody waits for may be there.
    pub(crate) fn look(&self) {
        let _waiting = self.waiting.lock();
        self.moved.notify_all();
    }

    /// Waits until it is there, for as long as nobody is in a hurry and at most so long. Whoever makes it true says [`look`](Self::look).
    pub(crate) fn wait(&self, is_there: impl Fn() -> bool, most: Duration) {
        let mut waiting = self.waiting.lock();
        // Nothing depends on why it ended.
        let _ = self.moved.wait_while_for(&mut waiting, |waiting| *waiting == 0 && !is_there(), most);
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        *self.0.waiting.lock() -= 1;
    }
}
