//! When does what candidates wrote take effect?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use midair_abi::store::Op;

use crate::call::context::{HostContext, Reaches};
use crate::live::generation::Generation;
use crate::live::resident::{Plan, Resident};
use crate::mutation::{self, Bug};
use crate::report::event::{Bus, Event};
use crate::resources::state::Write;

/// How long a publish waits for the disk to have what `init` wrote, if nobody is in a hurry. It is written in any case, and before what is
/// written later.
const SOON: Duration = Duration::from_secs(1);

/// The gates of candidates, as a resident.
pub(crate) struct Gates(pub(crate) Arc<HostContext>);

impl Resident for Gates {
    fn opens(&self, plan: &Plan) {
        if !mutation::is(Bug::WritesForgotten) {
            open(&self.0, plan.entering());
        }
    }
}

/// Opens the gates of all candidates of one attempt: what waited is written under one lock of the store, each call's writes all or
/// nothing. What can't be done any more, since the code before wrote meanwhile, is left out and told.
pub(crate) fn open<'a>(context: &HostContext, candidates: impl Iterator<Item = &'a Arc<Generation>>) {
    let (mut queues, mut openings) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let (queue, opening) = candidate.gate().open();
        openings.push(opening);
        queues.extend(queue.into_iter().map(|writes| (candidate, writes)));
    }
    if queues.is_empty() {
        return;
    }
    let groups: Vec<Vec<Op<'_>>> = queues.iter().map(|(_, writes)| writes.iter().map(Write::op).collect()).collect();
    let name = |(candidate, writes): &(&Arc<Generation>, Vec<Write>)| {
        let keys: Vec<String> = writes.iter().map(Write::place).collect();
        format!("{candidate}: what init wrote to {}", keys.join(", "))
    };
    let (names, bus): (Vec<String>, Bus) = (queues.iter().map(name).collect(), context.bus.clone());
    let (is_done, urgency) = (Arc::new(AtomicBool::new(false)), Arc::clone(&context.urgency));
    let does = Arc::clone(&is_done);
    context.store.apply_each(&groups, move |answers| {
        for (name, answer) in names.into_iter().zip(answers) {
            if let Err(refusal) = answer {
                bus.say(Event::Warning { message: format!("{name} was left out: {refusal}") });
            }
        }
        does.store(true, Ordering::SeqCst);
        urgency.look();
    });
    // What threads of theirs write comes behind it.
    drop(openings);
    context.urgency.wait(|| is_done.load(Ordering::SeqCst), SOON);
}

/// Shuts the gate on a candidate for good: what waited is thrown away, and whatever it still tries fails.
pub(crate) fn revoke(candidate: &Generation) {
    candidate.gate().revoke();
    candidate.revoke();
    let retiring = candidate.retiring();
    // There, since wakers may be the plugin's own.
    candidate.host().tasks.run(async move { retiring.ring() });
}
