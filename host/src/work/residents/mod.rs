//! Which residents does a host have?
//!
//! Each is a room of its own; those whose phases are a line stand here. The order within one phase doesn't matter, but
//! for the end.

#[cfg(all(test, not(midair_loom)))]
mod tally;

use std::sync::Arc;
use std::time::Duration;

use crate::call::context::HostContext;
use crate::live::generation::Generation;
use crate::live::resident::{Plan, Resident};
use crate::resources::logs::Logs;
use crate::resources::sockets::Sockets;
use crate::work::background::Background;
use crate::work::dispatch::Dispatch;
use crate::work::gates::Gates;
use crate::work::jobs::Jobs;

/// All of them, for a host that gives work of replaced code this time.
#[must_use]
pub(crate) fn all(context: &Arc<HostContext>, jobs: &Arc<Jobs>, retire: Duration) -> Vec<Arc<dyn Resident>> {
    vec![
        // First: when the host ends, no beat begins while others are told.
        Arc::<Jobs>::clone(jobs),
        Arc::new(Dispatch(Arc::clone(&context.messages))),
        Arc::new(Gates(Arc::clone(context))),
        Arc::new(Swaps(Arc::clone(&context.logs))),
        Arc::new(Background { limit: retire }),
        Arc::new(Connections(Arc::clone(&context.sockets))),
        #[cfg(all(test, not(midair_loom)))]
        Arc::new(tally::Tally::new(context)),
    ]
}

/// Lines of plugins say how many swaps there were.
struct Swaps(Arc<Logs>);

impl Resident for Swaps {
    fn left(&self, plan: &Plan) {
        if !plan.enters.is_empty() {
            self.0.swapped(plan.snapshot.epoch());
        }
    }
}

/// WebSockets look at what serves when that changed.
struct Connections(Arc<Sockets>);

impl Resident for Connections {
    fn settled(&self, _: &Arc<Generation>) {
        self.0.change();
    }

    fn entered(&self, plan: &Plan) {
        if !plan.enters.is_empty() {
            self.0.change();
        }
    }
}
