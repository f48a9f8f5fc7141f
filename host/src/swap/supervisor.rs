//! When is a published generation committed, and when does the one before come back?
//!
//! One thread hears what the answers on trial lead to and knows the time. It waits for no journey: whatever is being prepared, going back
//! is one store.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Shared;
use super::pipeline::part_of;
use crate::live::generation::{Alarm, Generation};
use crate::live::probation::{Breach, Verdict};
use crate::live::rollout::{Back, Which};
use crate::live::snapshot::Snapshot;
use crate::mutation::{self, Bug};
use crate::report::attempt::Record;
use crate::report::error::{Code, Error, Stage};
use crate::report::event::Event;
use crate::report::hold::{Held, HoldReason};
use crate::trial::table_scan::{self, First};
use crate::work::background;

/// The probation's thread, until the host is gone.
pub(super) fn watch(shared: &Arc<Shared>, alarms: &Receiver<Alarm>) {
    // Something that is due soon must also be seen if it was published since this began to wait: publishing rings.
    const LONG: Duration = Duration::from_secs(3600);
    loop {
        // One moment for both: what isn't due at it is due later.
        let now = Instant::now();
        commit(shared, now);
        let due = shared.standing.lock().due(&shared.options.rules, now);
        match alarms.recv_timeout(due.unwrap_or(LONG)) {
            Ok(Alarm { generation, verdict: Verdict::Breach(breach), at }) => breached(shared, generation, &breach, at),
            Ok(Alarm { verdict: Verdict::Enough | Verdict::Begun, .. }) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Commits what is due.
fn commit(shared: &Shared, now: Instant) {
    let due = shared.standing.lock().commit(&shared.options.rules, now);
    for generation in due.into_iter().flatten() {
        committed(shared, &generation);
    }
}

/// Writes down and says that a generation is committed.
pub(super) fn committed(shared: &Shared, generation: &Arc<Generation>) {
    let (plugin, digest) = (generation.plugin(), generation.digest());
    shared.stays(generation);
    if shared.options.recovers
        && let Err(error) = shared.recovery.commit(plugin, digest, generation.file())
    {
        shared.services.bus.say(Event::Warning { message: format!("{plugin}={}: {error}", generation.number()) });
    }
    shared.services.bus.say(Event::Committed {
        plugin: plugin.to_owned(),
        generation: generation.number(),
        digest: digest.to_owned(),
        requests: generation.counts().judged(),
        watched_us: generation.watched_us(),
    });
}

/// Goes back from what the generation with this key was published with, if it still serves and there is a way.
fn breached(shared: &Arc<Shared>, key: u64, breach: &Breach, at: Instant) {
    let mut standing = shared.standing.lock();
    let Some(serving) = shared.slot.now().generations().iter().find(|generation| generation.key() == key).cloned() else { return };
    let back = standing.trial_of(key).and_then(|trial| standing.breach(trial));
    let Some(back) = back else {
        let before = standing.before(serving.plugin());
        drop(standing);
        let help = match before {
            Some(before) => format!("`midair rollback {}` puts {}={before} back", serving.plugin(), serving.plugin()),
            None => "there is no earlier generation to go back to".to_owned(),
        };
        let (plugin, generation, reason) = (serving.plugin().to_owned(), serving.number(), breach.to_string());
        return shared.services.bus.say(Event::Breached { plugin, generation, reason, help });
    };
    let before = store(shared, &back);
    let after = at.elapsed();
    standing.renew();
    drop(standing);
    let reason = format!("{serving}: {breach}");
    rolled_back(shared, &back, &before, HoldReason::Breach, &reason, after);
}

/// Goes back as somebody asked for.
pub(super) fn by_hand(shared: &Arc<Shared>, which: &Which, asked: Instant) -> Record {
    let mut standing = shared.standing.lock();
    match standing.back(which) {
        Ok(back) => {
            let before = store(shared, &back);
            let after = asked.elapsed();
            drop(standing);
            rolled_back(shared, &back, &before, HoldReason::Hand, "asked for", after)
        }
        Err(no_way) => {
            drop(standing);
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

/// The store; what served before it. The standing is locked.
fn store(shared: &Shared, back: &Back) -> Arc<Snapshot> {
    back.pairs.iter().for_each(|(_, to)| shared.will_serve(to));
    back.snapshot.begin();
    let now = || shared.slot.publish(Arc::clone(&back.snapshot));
    let before = if mutation::is(Bug::RollbackUnstored) { shared.slot.now() } else { now() };
    let epoch = back.snapshot.epoch();
    // Each step for all of them, as with a publish.
    back.pairs.iter().for_each(|(from, _)| from.leaves(epoch));
    back.pairs.iter().for_each(|(_, to)| shared.serves(to));
    back.pairs.iter().for_each(|(_, to)| shared.stays(to));
    back.pairs.iter().for_each(|(from, _)| background::end(from, shared.options.retire));
    back.pairs.iter().for_each(|(_, to)| to.enters(epoch));
    for (_, to) in back.pairs.iter().filter(|_| !mutation::is(Bug::TasksNotBegunAgain)) {
        let member = back.snapshot.member(to.plugin()).filter(|member| member.generation.key() == to.key());
        member.into_iter().for_each(|member| shared.begin(&member.setup()));
    }
    before
}

/// Writes down and says what came back.
fn rolled_back(shared: &Arc<Shared>, back: &Back, before: &Snapshot, by: HoldReason, reason: &str, after: Duration) -> Record {
    for (from, to) in &back.pairs {
        let held = Held { digest: from.digest().to_owned(), by, reason: format!("rolled back: {reason}") };
        let mut written = shared.recovery.change(from.plugin(), |mark| {
            // What somebody puts back by its number is no longer held.
            mark.held.retain(|held| held.digest != to.digest());
            if held.digest != to.digest() && !mutation::is(Bug::RolledBackUnheld) {
                mark.hold(held);
            }
            mark.pending = None;
        });
        if shared.options.recovers && by == HoldReason::Hand {
            written = written.and_then(|()| shared.recovery.commit(to.plugin(), to.digest(), to.file()));
        }
        if let Err(error) = written {
            shared.services.bus.say(Event::Warning { message: format!("{from}: {error}") });
        }
    }
    for (from, to) in &back.pairs {
        let digest =
            |snapshot: &Snapshot| snapshot.member(from.plugin()).and_then(|member| member.config.digest().map(str::to_owned));
        if shared.options.config.is_some() && digest(before) != digest(&back.snapshot) {
            let message = format!(
                "{to} serves with the config that it served with before; what was edited since is taken with the next edit, or `midair reload`"
            );
            shared.services.bus.say(Event::Warning { message });
        }
    }
    let code = (by == HoldReason::Breach).then_some(Code::Probation);
    let trigger = if by == HoldReason::Breach { "breach" } else { "rollback" };
    let attempt = shared.journal.begin(trigger);
    let id = attempt.id();
    // Read back through the live table: only what really answers is said to be back.
    let live = shared.slot.now();
    let parts = back.pairs.iter().filter_map(|(from, _)| live.generation(from.plugin())).map(part_of).collect();
    let record = attempt.roll_back(parts, code, reason, &shared.journal);
    let in_flight = shared.services.leases.list();
    for (from, to) in &back.pairs {
        shared.services.bus.say(Event::RolledBack {
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
        shared.services.bus.say(Event::Retired { plugin: from.plugin().to_owned(), generation: from.number(), leases });
        read(shared, to, First::Counted);
    }
    record
}
