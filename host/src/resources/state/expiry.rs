//! When does what has ended go?
//!
//! Nobody reads it any more from the moment at which it ends. A thread of its own removes it, in bites: no write waits for more than one.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::State;

/// How many values are removed at once, the pause after as many, and how often somebody looks.
const BITE: usize = 256;
const PAUSE: Duration = Duration::from_millis(1);
const EVERY: Duration = Duration::from_millis(250);

/// The sweeper's thread, until what `state` leads to is gone.
pub(crate) fn run<T>(holder: &Weak<T>, state: impl Fn(&T) -> &State) {
    loop {
        std::thread::sleep(EVERY);
        loop {
            let Some(holder): Option<Arc<T>> = holder.upgrade() else { return };
            if state(&holder).sweep(BITE) < BITE {
                break;
            }
            drop(holder);
            std::thread::sleep(PAUSE);
        }
    }
}
