//! What does a generation do beside answering?
//!
//! Its declared tasks begin and end with its service; what it spawns belongs to a request, or to nobody. All of it keeps the code that it
//! runs on. A generation that serves no more is told; work that says so is dropped some time later, other work is named and left alone.
//! Beats and messages' handlers are dropped as well, or left behind, since others of newer code wait for their end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_timer::Delay;
use http::{HeaderMap, Method};
use midair_abi::Outcome;
use midair_abi::task::Taken;

use crate::call::context::Reaches;
use crate::call::invocation::Call;
use crate::call::request::RequestParts;
use crate::live::generation::Generation;
use crate::live::resident::{By, Plan, Resident};
use crate::live::snapshot::Setup;
use crate::mutation::{self, Bug};
use crate::plugin::exports::Calls;
use crate::report::event::Event;
use crate::resources::tasks::About;

/// Declared tasks, and the end of what goes on beside requests, as a resident.
pub(crate) struct Background {
    /// How long work goes on after newer code was published, before what may be dropped is.
    pub limit: Duration,
}

impl Resident for Background {
    fn ending(&self, plan: &Plan) {
        plan.leaves.iter().for_each(|old| end(old, self.limit));
    }

    fn begins(&self, plan: &Plan) {
        if plan.by == By::Rollback && mutation::is(Bug::TasksNotBegunAgain) {
            return;
        }
        plan.enters.iter().for_each(begin);
    }

    fn shutdown(&self, live: &[Arc<Generation>]) {
        live.iter().for_each(|generation| tell(generation));
    }
}

/// A future of a plugin with what it runs under. The future goes first: the call keeps its code.
struct Work {
    future: Taken,
    call: Arc<Call>,
}

/// Begins work under `call`; its number, 0 if it couldn't be. What is admitted to nothing waits until its generation serves.
pub(crate) fn spawn(name: String, until_retire: bool, call: Arc<Call>, future: Taken) -> u64 {
    let call = if mutation::is(Bug::TaskUnleased) { Call::detached(call.setup()) } else { call };
    let generation = Arc::clone(call.generation());
    let mut work = Work { future, call };
    let about = about(&work.call, name.clone(), until_retire);
    generation.host().tasks.spawn(about, async move {
        if work.call.is_detached() {
            let generation = Arc::clone(work.call.generation());
            generation.decided().rung().await;
            if generation.is_revoked() {
                return;
            }
        }
        let outcome = (&mut work.future).await;
        work.call.ended(&name, &outcome);
    })
}

/// Starts the tasks that a generation declares. It serves by now.
fn begin(setup: &Setup) {
    let generation = &setup.generation;
    let declared = generation.handlers().iter().enumerate().filter(|(_, handler)| handler.calls == Calls::Service);
    for (place, handler) in declared {
        let call = Call::detached_handler(setup.clone(), place);
        let about = about(&call, handler.name.clone(), true);
        generation.host().tasks.spawn(about, async move { drop(call.invoke(nothing(), None).await) });
    }
}

/// How long work has to be gone once it was dropped, before it is named.
const A_MOMENT: Duration = Duration::from_secs(1);

/// Tells a generation that it serves no more, and sees to what is still there after `limit`.
fn end(generation: &Arc<Generation>, limit: Duration) {
    let (tasks, bus) = (&generation.host().tasks, generation.host().bus.clone());
    let (retiring, newest, terms) = (generation.retiring(), tasks.newest(), generation.terms());
    // Nobody waits, and nothing is there that could: the rule.
    let generation = Arc::downgrade(generation);
    let inside = Arc::clone(tasks);
    tasks.run(async move {
        // Here, since wakers may be the plugin's own.
        retiring.ring();
        drop(retiring);
        Delay::new(limit).await;
        let Some(generation) = generation.upgrade() else { return };
        // What came since is of this term too, unless there was another one: that has a time of its own.
        let (serves, was_the_last) = (generation.serves(), generation.terms() == terms);
        let is_of_term = |id: u64| id <= newest || was_the_last;
        let mut dropped = Vec::new();
        for running in inside.of(generation.key()).into_iter().filter(|running| is_of_term(running.id)) {
            if running.about.until_retire && !mutation::is(Bug::DroppableKept) {
                inside.cancel(running.id);
                dropped.push(running.id);
                continue;
            }
            let message = format!(
                "{generation}: {} still runs {} s after newer code was published, and keeps its code in memory",
                running.about.name,
                limit.as_secs_f64()
            );
            bus.say(Event::Warning { message });
        }
        let mut calls = inside.calls_of(generation.key());
        calls.retain(|(id, _)| is_of_term(*id) && !serves && !mutation::is(Bug::DroppableKept));
        if !calls.is_empty() {
            calls.iter().for_each(|(id, _)| inside.give_up(*id));
            let (names, limit) = (names(calls.iter().map(|(_, name)| name)), limit.as_secs_f64());
            let message = format!("{generation}: given up {limit} s after newer code was published: {names}");
            bus.say(Event::Warning { message });
        }
        if dropped.is_empty() && calls.is_empty() {
            return;
        }
        let (key, name) = (generation.key(), generation.to_string());
        drop(generation);
        Delay::new(A_MOMENT).await;
        for running in inside.of(key).into_iter().filter(|running| dropped.contains(&running.id)) {
            let message = format!(
                "{name}: {} can't be dropped, though newer code was published: it never pauses, holds a thread, and keeps its code in \
                 memory",
                running.about.name
            );
            bus.say(Event::Warning { message });
        }
        let calls: Vec<(u64, String)> = inside.calls_of(key).into_iter().filter(|call| calls.contains(call)).collect();
        if !calls.is_empty() {
            calls.iter().for_each(|(id, _)| inside.let_go(*id));
            let message = format!(
                "{name}: can't be dropped, though newer code was published: {}; what never pauses holds a thread and keeps its code in \
                 memory, its job or topic goes on without it",
                names(calls.iter().map(|(_, name)| name))
            );
            bus.say(Event::Warning { message });
        }
    });
}

/// Each of these names, with how often it is there.
fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    let of = |(name, count): (&str, usize)| if count == 1 { name.to_owned() } else { format!("{name} ({count} times)") };
    counts.into_iter().map(of).collect::<Vec<_>>().join(", ")
}

/// Tells a generation that serves that the host ends.
fn tell(generation: &Generation) {
    let retiring = generation.retiring();
    // There, since wakers may be the plugin's own.
    generation.host().tasks.run(async move { retiring.ring() });
}

/// Done when the generation serves no more, or the host ends.
pub(crate) fn retiring(generation: &Generation) -> impl Future<Output = Outcome> + Send + 'static {
    let retiring = generation.retiring();
    async move {
        retiring.rung().await;
        Outcome::done()
    }
}

fn about(call: &Call, name: String, until_retire: bool) -> About {
    About { heeds: call.heeds(), ..call.generation().about(name, until_retire) }
}

/// What a handler gets that no request calls.
fn nothing() -> RequestParts {
    RequestParts {
        method: Method::GET,
        path: String::new(),
        query: String::new(),
        params: Vec::new(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        peer: None,
    }
}
