//! When is a published generation committed, and when does the one before come back?
//!
//! One thread hears what the answers on trial lead to and knows the time. It waits for no journey: whatever is being prepared, going back
//! is one store.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::cutover::Performed;
use super::shared::Shared;
use super::signals;
use crate::live::comparison::Finding;
use crate::live::generation::{Alarm, Generation};
use crate::live::probation::{Breach, Verdict};
use crate::live::refusal::{RollbackError, Which};
use crate::live::resident::Plan;
use crate::live::rollout::Rollout;
use crate::live::snapshot::Snapshot;
use crate::report::attempt::Record;
use crate::report::error::{Code, Error, Stage};
use crate::report::event::Event;
use crate::report::hold::HoldReason;
use crate::trial::table_scan::{self, First};

/// After so long code that failed and had nothing to go back to is judged anew.
const AGAIN: Duration = Duration::from_secs(10);

/// After so long what a publish starts beside requests has begun, and may have taken a signal.
const BEGUN: Duration = Duration::from_secs(1);

/// The probation's thread, until the host is gone.
pub(super) fn watch(shared: &Arc<Shared>, alarms: &Receiver<Alarm>) {
    // Something that is due soon must also be seen if it was published since this began to wait: publishing rings.
    const LONG: Duration = Duration::from_secs(3600);
    let mut begun: Option<Instant> = None;
    loop {
        // One moment for both: what isn't due at it is due later.
        let now = Instant::now();
        look(shared, None, now, now);
        commit(shared, now);
        if begun.is_some_and(|begun| begun <= now) {
            begun = None;
            signals::look(shared, None);
        }
        let due = shared.cutover.due(&shared.options.rules, now).into_iter().chain(begun.map(|begun| begun - now)).min();
        match alarms.recv_timeout(due.unwrap_or(LONG)) {
            Ok(Alarm { generation, verdict: Verdict::Breach(breach), at }) => breached(shared, generation, &breach, at),
            Ok(Alarm { generation, verdict: Verdict::Suspect, .. }) => suspected(shared, generation),
            Ok(Alarm { generation, verdict: Verdict::Look, at }) => look(shared, Some(generation), Instant::now(), at),
            Ok(Alarm { verdict: Verdict::Begun, .. }) => begun = Some(Instant::now() + BEGUN),
            Ok(Alarm { verdict: Verdict::Enough, .. }) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Commits what is due. It is said to be committed once that is on the disk, by who writes it.
fn commit(shared: &Shared, now: Instant) {
    let mut unwritten = Vec::new();
    let note = |generation: &Arc<Generation>| unwritten.extend(shared.recovery.commits(generation, committed(generation)));
    shared.cutover.commit(&shared.options.rules, now, note);
    unwritten.into_iter().for_each(|event| shared.context.bus.say(event));
}

/// That a generation is committed.
pub(super) fn committed(generation: &Generation) -> Event {
    Event::Committed {
        plugin: generation.plugin().to_owned(),
        generation: generation.number(),
        digest: generation.digest().to_owned(),
        requests: generation.counts().judged(),
        watched_us: generation.watched_us(),
    }
}

/// Compares the generation with this key with the one before.
fn suspected(shared: &Arc<Shared>, key: u64) {
    if let Some((live, before)) = shared.cutover.suspect(key, &shared.options.rules, Instant::now()) {
        let (plugin, generation) = (live.plugin().to_owned(), live.number());
        shared.context.bus.say(Event::Comparing { plugin, generation, with: before.number() });
    }
}

/// Judges the comparison of the generation with this key, or those whose time is over. Since when what it found is known.
fn look(shared: &Arc<Shared>, key: Option<u64>, now: Instant, at: Instant) {
    for (key, finding) in shared.cutover.look(key, now) {
        match finding {
            Finding::Slower(slower) => breached(shared, key, &Breach::Slower(slower), at),
            Finding::Equal(compared) => {
                let live = shared.slot.now();
                let generation = live.generations().iter().find(|generation| generation.key() == key);
                generation.into_iter().for_each(|generation| {
                    let (plugin, generation) = (generation.plugin().to_owned(), generation.number());
                    shared.context.bus.say(Event::Compared { plugin, generation, reason: compared.clone() });
                });
            }
            Finding::Unclear => {}
        }
    }
}

/// Goes back from what the generation with this key was published with, if it still serves and there is a way.
fn breached(shared: &Arc<Shared>, key: u64, breach: &Breach, at: Instant) {
    // What serves and has no way back, with the number of what could be put back by hand.
    type Stays = Option<(Arc<Generation>, Option<u64>)>;
    let decide = |rollout: &mut Rollout| -> Result<(Plan, Arc<Generation>), Stays> {
        let live = shared.slot.now();
        let serving = live.generations().iter().find(|generation| generation.key() == key).ok_or(None)?;
        let (now, before) = (Instant::now(), rollout.before(serving.plugin()).map(|(number, _)| number));
        let plan = rollout.breach(key, now, now + AGAIN);
        plan.map(|plan| (plan, Arc::clone(serving))).ok_or_else(|| Some((Arc::clone(serving), before)))
    };
    let mut reason = String::new();
    let performed = shared.cutover.perform_at_once(|rollout| {
        let (plan, serving) = decide(rollout)?;
        reason = format!("{serving}: {breach}");
        shared.recovery.goes_back(&plan, HoldReason::Breach, &reason);
        Ok(plan)
    });
    match performed {
        Ok(performed) => {
            let after = performed.at.saturating_duration_since(at);
            rolled_back(shared, &performed, HoldReason::Breach, &reason, after);
        }
        Err(None) => {}
        Err(Some((serving, before))) => {
            let help = match before {
                Some(before) => format!("`midair rollback {}` puts {}={before} back", serving.plugin(), serving.plugin()),
                None if shared.options.rules.acts => format!(
                    "there is no earlier generation to go back to: it serves on, isn't committed, and is judged anew in {} s",
                    AGAIN.as_secs()
                ),
                None => "there is no earlier generation to go back to".to_owned(),
            };
            let (plugin, generation, reason) = (serving.plugin().to_owned(), serving.number(), breach.to_string());
            shared.context.bus.say(Event::Breached { plugin, generation, reason, help });
        }
    }
}

/// Goes back as somebody asked for.
pub(super) fn by_hand(shared: &Arc<Shared>, which: &Which, asked: Instant) -> Record {
    let decide = |rollout: &mut Rollout| {
        let plan = rollout.back(which)?;
        shared.recovery.goes_back(&plan, HoldReason::Hand, "asked for");
        Ok::<_, RollbackError>(plan)
    };
    match shared.cutover.perform_at_once(decide) {
        Ok(performed) => {
            let after = performed.at.saturating_duration_since(asked);
            rolled_back(shared, &performed, HoldReason::Hand, "asked for", after)
        }
        Err(no_way) => {
            let subject = match which {
                Which::Last => String::new(),
                Which::Plugin(plugin) => plugin.clone(),
                Which::To(plugin, number) => format!("{plugin}={number}"),
            };
            let error = Error::rejected(Code::Usage, Stage::Rollback, subject, no_way.to_string())
                .help("`midair generations` shows what is kept");
            shared.reject(shared.journal.begin("rollback"), &error)
        }
    }
}

/// Has the generation read what is there, for as long as it serves.
pub(super) fn read(shared: &Arc<Shared>, generation: &Arc<Generation>, first: First) {
    let host = Arc::downgrade(shared);
    table_scan::begin(generation, first, shared.options.deadline, move |reader| {
        let live = host.upgrade().and_then(|shared| shared.slot.now().generation(reader.plugin()).map(|live| live.key()));
        live == Some(reader.key())
    });
}

/// Says what came back.
fn rolled_back(shared: &Arc<Shared>, performed: &Performed, by: HoldReason, reason: &str, after: Duration) -> Record {
    let Performed { plan: back, before, .. } = performed;
    for (from, to) in back.pairs() {
        let digest =
            |snapshot: &Snapshot| snapshot.member(from.plugin()).and_then(|member| member.config.digest().map(str::to_owned));
        if shared.options.config.is_some() && digest(before) != digest(&back.snapshot) {
            let message = format!(
                "{to} serves with the config that it served with before; what was edited since is taken with the next edit, or `midair reload`"
            );
            shared.context.bus.say(Event::Warning { message });
        }
    }
    let code = (by == HoldReason::Breach).then_some(Code::Probation);
    let trigger = if by == HoldReason::Breach { "breach" } else { "rollback" };
    let attempt = shared.journal.begin(trigger);
    let id = attempt.id();
    // Read back through the live table: only what really answers is said to be back.
    let live = shared.slot.now();
    let parts = back.leaves.iter().filter_map(|from| live.generation(from.plugin())).map(|live| live.part()).collect();
    let record = attempt.roll_back(parts, code, reason, &shared.journal);
    let in_flight = shared.context.leases.list();
    for (from, to) in back.pairs() {
        shared.context.bus.say(Event::RolledBack {
            attempt: id,
            plugin: from.plugin().to_owned(),
            from: from.number(),
            to: to.number(),
            digest: from.digest().to_owned(),
            epoch: back.snapshot.epoch(),
            by,
            code,
            reason: reason.to_owned(),
            after_us: u64::try_from(after.as_micros()).unwrap_or(u64::MAX),
        });
        let leases =
            in_flight.iter().filter(|(_, facts, _)| facts.epoch <= before.epoch() && facts.generation == from.key()).count();
        shared.context.bus.say(Event::Retired { plugin: from.plugin().to_owned(), generation: from.number(), leases });
        read(shared, to, First::Counted);
    }
    record
}
