//! What is the least that a resident is?
//!
//! For tests alone: how often each plugin served. It is this file, and a line in `all`; nothing else of the host knows of it. It tells on the bus
//! what a real one would keep.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::call::context::HostContext;
use crate::live::generation::Generation;
use crate::live::resident::{Plan, Resident};
use crate::report::event::{Bus, Event};

/// Counts terms of service, over all swaps.
pub(super) struct Tally {
    bus: Bus,
    terms: Mutex<BTreeMap<String, usize>>,
}

impl Tally {
    pub(super) fn new(context: &HostContext) -> Self {
        Self { bus: context.bus.clone(), terms: Mutex::default() }
    }

    fn tell(&self, message: String) {
        self.bus.say(Event::Warning { message: format!("tally: {message}") });
    }
}

impl Resident for Tally {
    fn left(&self, plan: &Plan) {
        plan.leaves.iter().for_each(|old| self.tell(format!("{old} left")));
    }

    fn serving(&self, plan: &Plan) {
        for new in plan.entering() {
            let mut terms = self.terms.lock();
            let term = terms.entry(new.plugin().to_owned()).or_default();
            *term += 1;
            self.tell(format!("{new} serves, term {term}"));
        }
    }

    fn settled(&self, generation: &Arc<Generation>) {
        self.tell(format!("{generation} stays"));
    }

    fn shutdown(&self, live: &[Arc<Generation>]) {
        live.iter().for_each(|generation| self.tell(format!("{generation} serves to the end")));
    }
}
