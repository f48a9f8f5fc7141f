//! How is something waited for that happens once?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event_listener::Event;

/// Something that happens once and is waited for.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    ring: Event,
}

impl Bell {
    /// It has happened. Wakes whoever waits, on this thread: where that may be plugin code, ring on a thread for work beside requests.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        self.ring.notify(usize::MAX);
    }

    /// Done once it has happened.
    pub(crate) async fn rung(self: Arc<Self>) {
        while !self.rung.load(Ordering::SeqCst) {
            let listener = self.ring.listen();
            if self.rung.load(Ordering::SeqCst) {
                break;
            }
            listener.await;
        }
    }
}
