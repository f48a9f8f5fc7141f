//! How does a message come from one plugin to another?
//!
//! From a generation that emits into the queues, and from there to the one that serves when its turn comes. What a candidate emits waits
//! for its publish.

use std::sync::Arc;

use bytes::Bytes;
use midair_abi::store::Refusal;
use midair_abi::task::{self, Keep};
use midair_abi::{Outcome, meta};

use crate::call::context::Reaches;
use crate::call::invocation::{Call, parts};
use crate::live::generation::Generation;
use crate::live::resident::{Plan, Resident};
use crate::live::slot::Slot;
use crate::plugin::exports::{Calls, HandlerInfo};
use crate::resources::topics::{Carried, Carry, Carrying, Messages, Wanted};

/// Topics as a resident.
pub(crate) struct Dispatch(pub(crate) Arc<Messages>);

impl Resident for Dispatch {
    /// What it emits, or is emitted for it, from the moment of the store on finds a queue. What it takes no more is still taken by the code before.
    fn before_store(&self, plan: &Plan) {
        plan.entering().for_each(|generation| self.0.open(generation.plugin(), &wanted(generation)));
    }

    fn serving(&self, plan: &Plan) {
        for generation in plan.entering() {
            self.0.subscribe(generation.plugin(), &wanted(generation));
            self.keep_for(generation.plugin(), generation.before().as_deref());
        }
    }

    fn settled(&self, generation: &Arc<Generation>) {
        self.keep_for(generation.plugin(), Some(generation));
    }

    fn shutdown(&self, live: &[Arc<Generation>]) {
        live.iter().for_each(|generation| self.keep_for(generation.plugin(), None));
    }
}

impl Dispatch {
    /// What waits for code of a plugin that doesn't serve goes, but for what this code takes.
    fn keep_for(&self, plugin: &str, code: Option<&Generation>) {
        self.0.drop_all(plugin, &code.map(wanted).unwrap_or_default());
    }
}

/// Emits what a generation's code does: an answer, or a future of one where it has to wait for room.
pub(crate) fn emit(generation: &Arc<Generation>, topic: String, message: Bytes, waits: bool) -> Outcome {
    let services = generation.host();
    if services.probe {
        return Outcome::done();
    }
    if generation.is_revoked() {
        return Outcome::refused(&Refusal::Revoked);
    }
    let refused = |reason: String| Outcome::told(Outcome::ERROR, 503, reason, &[]);
    if generation.is_candidate() {
        return later(generation, topic, message).map_or_else(refused, |()| Outcome::done());
    }
    match services.messages.try_emit(&topic, &message) {
        Ok(()) => Outcome::done(),
        Err(full) if !waits => refused(full.to_string()),
        Err(_) => {
            let (keep, emits) = (Arc::clone(generation) as Keep, Arc::clone(&services.messages).emit(topic, message));
            let emits = async move {
                emits.await;
                Outcome::done()
            };
            task::give_unpolled(Box::pin(emits), Some(keep))
        }
    }
}

/// Keeps a candidate's message until it is decided what becomes of it.
fn later(candidate: &Arc<Generation>, topic: String, message: Bytes) -> Result<(), String> {
    let services = candidate.host();
    let (key, messages) = (candidate.key(), &services.messages);
    if messages.hold(key, topic, message)? {
        let (decided, messages) = (candidate.decided(), Arc::clone(messages));
        let candidate = Arc::downgrade(candidate);
        services.tasks.run(async move {
            decided.rung().await;
            let held = messages.release(key);
            if candidate.upgrade().is_some_and(|candidate| !candidate.is_revoked()) {
                for (topic, message) in held {
                    Arc::clone(&messages).emit(topic, message).await;
                }
            }
        });
    }
    Ok(())
}

/// The topics that a generation takes.
#[must_use]
fn wanted(generation: &Generation) -> Vec<Wanted> {
    let wanted = |handler: &HandlerInfo| {
        let number = |key| handler.number(key).and_then(|number| usize::try_from(number).ok()).unwrap_or(1).max(1);
        Wanted { topic: handler.name.clone(), limit: number(meta::QUEUE), at_once: number(meta::AT_ONCE) }
    };
    generation.handlers().iter().filter(|handler| handler.calls == Calls::Messages).map(wanted).collect()
}

impl Carry for Slot {
    fn carry(&self, plugin: &str, topic: &str, message: Bytes) -> Carrying {
        let Some(call) = Call::admit_work(self, plugin, Calls::Messages, topic) else {
            return Box::pin(std::future::ready(Carried::Nowhere));
        };
        let works = call.work(format!("a message of {topic}"), parts(Vec::new(), message));
        Box::pin(async move { if works.await.0 { Carried::Well } else { Carried::Badly } })
    }
}
