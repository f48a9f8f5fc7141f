//! Who waits for what comes of a reload?
//!
//! A reload may take more than one attempt: one that a newer edit overtook is answered by the attempt that overtook it. So those who asked stay
//! here until an attempt comes to its own end, with the records of all until then.

use crate::attempt::{Asker, Ending, Outcome, Record};

/// Those whose reload is under way, and what came of it so far.
#[derive(Default)]
pub(crate) struct Askers {
    waiting: Vec<Box<dyn Asker>>,
    records: Vec<Record>,
}

impl Askers {
    /// Begins the reload of these, beside those that wait already.
    pub(crate) fn begin(&mut self, mut askers: Vec<Box<dyn Asker>>) {
        askers.iter_mut().for_each(|asker| asker.begins());
        self.waiting.append(&mut askers);
    }

    /// An attempt ended; answers how.
    pub(crate) fn note(&mut self, record: &Record) -> Outcome {
        if !self.waiting.is_empty() {
            self.records.push(record.clone());
        }
        record.outcome
    }

    /// Tells all of them what came of it. If nothing did, as the loop ends, they are let go.
    pub(crate) fn end(&mut self) {
        let records = std::mem::take(&mut self.records);
        for asker in self.waiting.drain(..) {
            if let Some(ending) = Ending::of(&records) {
                asker.ends(ending);
            }
        }
    }
}
