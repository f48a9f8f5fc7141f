//! Which generations serve, on trial or committed, and which is the way back?
//!
//! The rollout changes in whole steps: a publish, a commit, a rollback. Each step that needs a snapshot composes it before anything is
//! changed, so a step that can't be taken leaves all as it was. With each publish the ways back of everything on trial are composed and
//! checked too, alone and in pairs (routes clash in pairs): so a rollback out of a trial finds its snapshot ready and can't fail.
//!
//! Nothing here stores into the slot, writes a file, or runs plugin code; whoever asks holds the one lock around this.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::live::comparison::Comparison;
use crate::live::config::Config;
use crate::live::generation::Generation;
use crate::live::probation::Rules;
use crate::live::refusal::{Refusal, RollbackError, Which};
use crate::live::resident::{By, Plan};
use crate::live::route::Clash;
use crate::live::snapshot::{Compared, Member, Setup, Snapshot};
use crate::mutation::{self, Bug};

/// All plugins' rollout.
pub(crate) struct Rollout {
    epoch: u64,
    places: BTreeMap<String, PluginRollout>,
    trials: Vec<Trial>,
    /// The plugins of the last publish.
    last: Vec<String>,
    /// How many generations that served before are kept of a plugin, to go back to by hand; what a breach goes back to is kept anyway.
    keep: usize,
    /// Whether the ways back are to be prepared anew.
    is_stale: bool,
}

/// One plugin's.
#[derive(Clone)]
struct PluginRollout {
    live: Member,
    /// Whether the live one is committed. If not, it is on trial.
    is_committed: bool,
    /// What served before, the latest first, each with the config that it served with last. The first is the fallback of what is on trial.
    earlier: Vec<Earlier>,
}

/// A generation that served before.
#[derive(Clone)]
struct Earlier {
    setup: Setup,
    is_committed: bool,
}

/// What was published by one attempt and isn't committed yet.
struct Trial {
    plugins: BTreeSet<String>,
    since: Instant,
    /// When it is judged anew after a breach with nothing to go back to.
    again: Option<Instant>,
    /// What was committed by an earlier run needs its time alone.
    origin: Origin,
    /// The snapshot to go back to, where there is something to go back to.
    back: Option<Arc<Snapshot>>,
    /// What of it is being compared with the code before.
    comparisons: Vec<Arc<Comparison>>,
}

/// Where the bytes of a publish came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From the artifact's path: they have to prove themselves.
    Path,
    /// From the copy of what an earlier run committed.
    Recovered,
    /// From the copy of what served in an earlier run and was never committed: nothing better is there.
    Fallback,
}

/// How a plugin's generation stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Serves and is watched.
    Trial,
    /// Serves and is committed.
    Committed,
    /// Is kept to go back to.
    Kept,
}

/// How everything stood at one moment, for people.
#[derive(Clone, Default)]
pub(crate) struct Standing {
    /// Every generation that serves or is kept.
    pub all: Vec<(Arc<Generation>, Phase)>,
    /// By plugin the generation that a rollback would put back, and whether it was committed.
    pub before: BTreeMap<String, (u64, bool)>,
}

impl Standing {
    /// How this generation stands, if it serves or is kept.
    #[must_use]
    pub(crate) fn of(&self, generation: &Generation) -> Option<Phase> {
        let stood = self.all.iter().find(|(other, _)| other.key() == generation.key()).map(|(_, phase)| *phase);
        // What was published since begins on trial.
        stood.or_else(|| generation.serves().then_some(Phase::Trial))
    }
}

impl Rollout {
    /// Nothing serves yet; `keep` committed generations of a plugin are kept besides the last one.
    #[must_use]
    pub(crate) fn new(keep: usize) -> Self {
        Self { epoch: 0, places: BTreeMap::new(), trials: Vec::new(), last: Vec::new(), keep, is_stale: false }
    }

    /// Decides a publish: the snapshot to store. The candidates go on trial, or are committed at once where a breach leads to nothing. What
    /// is in `configs` serves already and goes on with another config: that is no trial, and nothing to go back from.
    ///
    /// # Errors
    ///
    /// The routes that clash; the rollout is as before.
    pub(crate) fn publish(
        &mut self,
        candidates: &[Setup],
        configs: &[Setup],
        origin: Origin,
        rules: &Rules,
        now: Instant,
    ) -> Result<Plan, Refusal> {
        let names: BTreeSet<String> = candidates.iter().map(|candidate| candidate.generation.plugin().to_owned()).collect();
        let mut places = self.places.clone();
        for candidate in candidates {
            let (live, name) = (Member::anew(candidate.clone()), candidate.generation.plugin());
            match places.get_mut(name) {
                Some(place) => place.replace(live, self.keep),
                None => drop(places.insert(name.to_owned(), PluginRollout { live, is_committed: false, earlier: Vec::new() })),
            }
        }
        for setup in configs {
            places.get_mut(setup.generation.plugin()).into_iter().for_each(|place| place.configure(setup));
        }
        if !rules.acts || origin == Origin::Recovered {
            names.iter().for_each(|name| places.get_mut(name).into_iter().for_each(|place| place.commit(self.keep)));
        }
        let mut trials: Vec<Trial> = self.trials.iter().filter_map(|trial| trial.without(&names)).collect();
        if rules.acts && !names.is_empty() {
            trials.push(Trial::begun(names.clone(), now, origin));
        }
        let last = if names.is_empty() { self.last.clone() } else { names.iter().cloned().collect() };
        let next = Rollout { epoch: self.epoch + 1, places, trials, last, keep: self.keep, is_stale: false };
        let snapshot = Arc::new(next.compose(next.epoch, &BTreeSet::new()).map_err(Refusal::Clash)?);
        let next = next.with_ways_back()?;
        let live = |name: &String| self.places.get(name).map(|place| Arc::clone(&place.live.generation));
        let leaves: Vec<Arc<Generation>> = names.iter().filter_map(live).collect();
        // What a newer publish overtakes is judged no more.
        leaves.iter().for_each(|old| old.counts().end_trial());
        if origin != Origin::Recovered {
            for Setup { generation, .. } in candidates {
                let place = self.places.get(generation.plugin());
                place.filter(|_| rules.acts).into_iter().for_each(|before| generation.follows(&before.live.generation));
                let is_asked = generation.handlers().iter().any(|handler| handler.calls.is_asked());
                generation.counts().try_against(
                    *rules,
                    place.and_then(PluginRollout::standard).map(|before| before.counts()),
                    is_asked,
                );
            }
        }
        *self = next;
        let settles = candidates.iter().filter(|_| !rules.acts).map(|candidate| Arc::clone(&candidate.generation)).collect();
        Ok(Plan { by: By::Publish, snapshot, leaves, enters: candidates.to_vec(), settles })
    }

    /// The snapshot of what serves, with these plugins gone back to what served before.
    fn compose(&self, epoch: u64, back: &BTreeSet<&str>) -> Result<Snapshot, Clash> {
        let members = self.places.iter().map(|(name, place)| match place.fallback() {
            Some(fallback) if back.contains(name.as_str()) => Member::anew(fallback.setup.clone()),
            _ => place.live.clone(),
        });
        Snapshot::compose(epoch, members)
    }

    /// Prepares the way back of everything on trial.
    fn with_ways_back(mut self) -> Result<Self, Refusal> {
        let names: Vec<BTreeSet<String>> = self.trials.iter().map(|trial| self.with_way_back(trial)).collect();
        let mut backs = Vec::new();
        for (at, one) in names.iter().enumerate() {
            let refused = |clash| Refusal::WayBack(one.iter().cloned().collect(), clash);
            let alone: BTreeSet<&str> = one.iter().map(String::as_str).collect();
            backs.push(if one.is_empty() { None } else { Some(Arc::new(self.compose(self.epoch + 1, &alone).map_err(refused)?)) });
            for other in &names[at + 1..] {
                let both = alone.iter().copied().chain(other.iter().map(String::as_str)).collect();
                self.compose(self.epoch + 1, &both).map_err(refused)?;
            }
        }
        self.trials.iter_mut().zip(backs).for_each(|(trial, back)| trial.back = back);
        Ok(self)
    }

    /// The plugins of a trial that have something to go back to.
    fn with_way_back(&self, trial: &Trial) -> BTreeSet<String> {
        let has = |name: &&String| self.places.get(*name).is_some_and(|place| place.fallback().is_some());
        if mutation::is(Bug::RollbackTakesOthers) {
            return self.places.keys().filter(has).cloned().collect();
        }
        trial.plugins.iter().filter(has).cloned().collect()
    }

    /// The trial in which the generation with this key serves.
    fn trial_of(&self, key: u64) -> Option<usize> {
        let serves = |name: &String| self.places.get(name).is_some_and(|place| place.live.generation.key() == key);
        self.trials.iter().position(|trial| trial.plugins.iter().any(serves))
    }

    /// Decides to go back out of the trial of the generation with this key. `None` if it isn't on trial, or has nothing to go back to: then
    /// it stays on trial, and is judged anew from `again` on.
    ///
    /// What comes back and was never committed is on trial again. After the store, [`renew`](Self::renew) prepares all ways back anew.
    pub(crate) fn breach(&mut self, key: u64, now: Instant, again: Instant) -> Option<Plan> {
        let at = self.trial_of(key)?;
        let Some(snapshot) = self.trials[at].back.take() else {
            self.trials[at].again = Some(again);
            return None;
        };
        let trial = self.trials.remove(at);
        let names = self.with_way_back(&trial);
        // What has nothing to go back to stays on trial.
        self.trials.extend(trial.without(&names));
        let (mut leaves, mut enters, mut settles, mut resumes) = (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
        for name in &names {
            let (Some(place), Some(member)) = (self.places.get_mut(name), snapshot.member(name)) else { continue };
            enters.push(member.setup());
            let from = place.fall_back(member);
            from.counts().end_trial();
            leaves.push(from);
            if place.is_committed {
                settles.push(Arc::clone(&place.live.generation));
            } else {
                place.live.generation.counts().resume_trial();
                resumes.insert(name.clone());
            }
        }
        if !resumes.is_empty() {
            self.trials.push(Trial::begun(resumes, now, Origin::Path));
        }
        self.epoch = snapshot.epoch();
        self.is_stale = true;
        Some(Plan { by: By::Rollback, snapshot, leaves, enters, settles })
    }

    /// Has what failed without a way back judged anew, once its pause is over.
    pub(crate) fn rearm(&mut self, now: Instant) {
        for trial in self.trials.iter_mut().filter(|trial| trial.again.is_some_and(|again| again <= now)) {
            (trial.again, trial.since) = (None, now);
            let places = trial.plugins.iter().filter_map(|name| self.places.get(name));
            places.for_each(|place| place.live.generation.counts().resume_trial());
        }
    }

    /// Looks into the suspicion that the generation with this key is slower than the one before: what it is compared with. `None` if it isn't on
    /// trial, is being compared, or has nothing to go back to.
    pub(crate) fn suspect(&mut self, key: u64, rules: &Rules, now: Instant) -> Option<Arc<Generation>> {
        let at = self.trial_of(key)?;
        let back = Arc::clone(self.trials[at].back.as_ref()?);
        let trial = &mut self.trials[at];
        let of = |name: &String| self.places.get(name).map(|place| &place.live.generation).filter(|live| live.key() == key);
        let live = Arc::clone(trial.plugins.iter().find_map(of)?);
        let before = back.generation(live.plugin()).filter(|before| before.key() != key)?;
        if trial.comparisons.iter().any(|comparison| comparison.generation() == key) {
            return None;
        }
        let (limit, earlier) = live.counts().look_into()?;
        trial.comparisons.push(Comparison::begin(&live, *rules, limit, earlier, now));
        Some(Arc::clone(before))
    }

    /// What is being compared.
    pub(crate) fn comparisons(&self) -> impl Iterator<Item = Arc<Comparison>> {
        self.trials.iter().flat_map(|trial| &trial.comparisons).cloned()
    }

    /// The comparison of the generation with this key is over: nothing was found.
    pub(crate) fn acquit(&mut self, key: u64) {
        let Some(at) = self.trial_of(key) else { return };
        self.trials[at].comparisons.retain(|comparison| comparison.generation() != key);
        let live = self.places.values().map(|place| &place.live.generation).find(|live| live.key() == key);
        live.into_iter().for_each(|live| live.counts().acquit());
    }

    /// What is compared in the snapshot that serves. A comparison goes on over what else is published, with the ways back as they are by then; one
    /// that has lost its own ends.
    #[must_use]
    pub(crate) fn compared(&mut self) -> Vec<Compared> {
        let mut all = Vec::new();
        for at in 0..self.trials.len() {
            let comparisons = std::mem::take(&mut self.trials[at].comparisons);
            for comparison in comparisons {
                let key = comparison.generation();
                let live = self.places.values().map(|place| &place.live.generation).find(|live| live.key() == key);
                match (live, &self.trials[at].back) {
                    (Some(live), Some(back)) if self.trials[at].plugins.contains(live.plugin()) => {
                        all.push(Compared { comparison: Arc::clone(&comparison), back: Arc::clone(back) });
                        self.trials[at].comparisons.push(comparison);
                    }
                    (live, _) => live.into_iter().for_each(|live| live.counts().forget_suspicion()),
                }
            }
        }
        all
    }

    /// Prepares the ways back of everything that is still on trial, after a rollback.
    ///
    /// They were checked in pairs when they were published, so they can't clash. Those of what came back weren't, as other routes may have been
    /// published since: one that clashes has none.
    pub(crate) fn renew(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        for at in 0..self.trials.len() {
            let names = self.with_way_back(&self.trials[at]);
            let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            let back = if names.is_empty() { None } else { self.compose(self.epoch + 1, &names).ok().map(Arc::new) };
            self.trials[at].back = back;
        }
    }

    /// Decides to go back by hand.
    ///
    /// # Errors
    ///
    /// Why there is no such way; the rollout is as before.
    pub(crate) fn back(&mut self, which: &Which) -> Result<Plan, RollbackError> {
        let targets: Vec<(String, Setup)> = match which {
            Which::Last if self.last.is_empty() => return Err(RollbackError::Never),
            Which::Last => {
                let found: Vec<_> =
                    self.last.iter().map(|name| Ok((name.clone(), self.place(name)?.before(name)?.setup.clone()))).collect();
                // A plugin that is new has nothing to go back to and stays, unless it is alone.
                match found.iter().any(Result::is_ok) {
                    true => found.into_iter().flatten().collect(),
                    false => found.into_iter().collect::<Result<_, _>>()?,
                }
            }
            Which::Plugin(name) => vec![(name.clone(), self.place(name)?.before(name)?.setup.clone())],
            Which::To(name, number) => vec![(name.clone(), self.place(name)?.numbered(name, *number)?.setup.clone())],
        };
        let names: BTreeSet<String> = targets.iter().map(|(name, _)| name.clone()).collect();
        let (mut places, mut leaves, mut enters, mut settles) = (self.places.clone(), Vec::new(), Vec::new(), Vec::new());
        for (name, target) in targets {
            let Some(place) = places.get_mut(&name) else { continue };
            leaves.push(Arc::clone(&place.live.generation));
            settles.push(Arc::clone(&target.generation));
            enters.push(target.clone());
            place.go_back(target, self.keep);
        }
        let trials = self.trials.iter().filter_map(|trial| trial.without(&names)).collect();
        let next = Rollout { epoch: self.epoch + 1, places, trials, last: self.last.clone(), keep: self.keep, is_stale: false };
        let clash = |clash: Clash| RollbackError::Clash(clash.to_string());
        let snapshot = Arc::new(next.compose(next.epoch, &BTreeSet::new()).map_err(clash)?);
        let next = next.with_ways_back().map_err(|refusal| RollbackError::Clash(refusal.to_string()))?;
        leaves.iter().for_each(|from| from.counts().end_trial());
        *self = next;
        Ok(Plan { by: By::Rollback, snapshot, leaves, enters, settles })
    }

    fn place(&self, name: &str) -> Result<&PluginRollout, RollbackError> {
        self.places.get(name).ok_or_else(|| RollbackError::Unknown(name.to_owned()))
    }

    /// Commits what was watched long enough and answered enough; the generations, by trial.
    pub(crate) fn commit(&mut self, rules: &Rules, now: Instant) -> Vec<Vec<Arc<Generation>>> {
        let (due, rest) = std::mem::take(&mut self.trials).into_iter().partition(|trial| self.is_due(trial, rules, now));
        self.trials = rest;
        let due: Vec<Trial> = due;
        due.iter().map(|trial| trial.plugins.iter().filter_map(|name| self.commit_one(name)).collect()).collect()
    }

    fn commit_one(&mut self, name: &str) -> Option<Arc<Generation>> {
        let place = self.places.get_mut(name)?;
        place.commit(self.keep);
        place.live.generation.counts().end_trial();
        Some(Arc::clone(&place.live.generation))
    }

    fn is_due(&self, trial: &Trial, rules: &Rules, now: Instant) -> bool {
        let counts = || trial.plugins.iter().filter_map(|name| self.places.get(name)).map(|place| place.live.generation.counts());
        // One that has failed is on its way back, even if that wasn't heard yet.
        let enough =
            trial.origin == Origin::Recovered || counts().all(|counts| counts.judged() >= rules.requests && !counts.is_over());
        let have_read = trial.plugins.iter().filter_map(|name| self.places.get(name)).all(|place| place.live.generation.has_read());
        enough && have_read && trial.comparisons.is_empty() && now.saturating_duration_since(trial.since) >= rules.time
    }

    /// When a trial may next be over by time, or has been and lacks requests.
    #[must_use]
    pub(crate) fn due(&self, rules: &Rules, now: Instant) -> Option<Duration> {
        let left = |trial: &Trial| rules.time.saturating_sub(now.saturating_duration_since(trial.since));
        let again = self.trials.iter().filter_map(|trial| Some(trial.again?.saturating_duration_since(now)));
        let compared =
            self.trials.iter().flat_map(|trial| &trial.comparisons).map(|one| one.until().saturating_duration_since(now));
        self.trials.iter().map(left).filter(|left| !left.is_zero()).chain(again).chain(compared).min()
    }

    /// The generation that a rollback of this plugin would put back, and whether it was committed.
    #[must_use]
    pub(crate) fn before(&self, name: &str) -> Option<(u64, bool)> {
        let before = self.places.get(name)?.before(name).ok()?;
        Some((before.setup.generation.number(), before.is_committed))
    }

    /// How everything stands at this moment.
    #[must_use]
    pub(crate) fn standing(&self) -> Standing {
        let before = self.places.keys().filter_map(|name| Some((name.clone(), self.before(name)?))).collect();
        Standing { all: self.all(), before }
    }

    fn all(&self) -> Vec<(Arc<Generation>, Phase)> {
        let of = |place: &PluginRollout| {
            let live = &place.live.generation;
            let phase = if place.on_trial() { Phase::Trial } else { Phase::Committed };
            let kept = place.kept();
            let mut all = vec![(Arc::clone(live), phase)];
            all.extend(kept.map(|kept| (Arc::clone(kept), Phase::Kept)));
            all
        };
        self.places.values().flat_map(of).collect()
    }
}

impl Trial {
    /// The trial of the others; `None` if none is left.
    fn without(&self, names: &BTreeSet<String>) -> Option<Self> {
        let plugins: BTreeSet<String> = self.plugins.difference(names).cloned().collect();
        let Trial { since, again, origin, ref comparisons, .. } = *self;
        let comparisons = comparisons.clone();
        (!plugins.is_empty()).then_some(Trial { plugins, since, again, origin, back: None, comparisons })
    }

    fn begun(plugins: BTreeSet<String>, since: Instant, origin: Origin) -> Self {
        Self { plugins, since, again: None, origin, back: None, comparisons: Vec::new() }
    }
}

impl PluginRollout {
    fn on_trial(&self) -> bool {
        !self.is_committed
    }

    /// What comes back by itself if the live one fails.
    fn fallback(&self) -> Option<&Earlier> {
        self.earlier.first().filter(|_| self.on_trial())
    }

    /// What new code is held against: the last committed one. What never was committed has answered too little to be a measure.
    fn standard(&self) -> Option<&Arc<Generation>> {
        match self.is_committed {
            true => Some(&self.live.generation),
            false => self.earlier.iter().find(|earlier| earlier.is_committed).map(|earlier| &earlier.setup.generation),
        }
    }

    /// What is kept to go back to.
    fn kept(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.earlier.iter().map(|earlier| &earlier.setup.generation)
    }

    /// The same code goes on with another config; one that another generation read is nobody's any more.
    fn configure(&mut self, Setup { generation, config }: &Setup) {
        if self.live.generation.key() == generation.key() {
            self.live.config = Arc::clone(config);
        }
    }

    /// Other code serves, on trial.
    fn replace(&mut self, live: Member, keep: usize) {
        let mut setup = std::mem::replace(&mut self.live, live).setup();
        if mutation::is(Bug::RollbackForgetsConfig) {
            setup.config = Config::none();
        }
        let before = Earlier { setup, is_committed: self.is_committed };
        self.earlier.insert(0, before);
        self.is_committed = false;
        self.let_go(keep);
    }

    fn commit(&mut self, keep: usize) {
        self.is_committed = true;
        self.let_go(keep);
    }

    /// Lets go of what isn't to be kept: `keep` stay, among them the fallback of what is on trial and the last committed one; those two in any
    /// case.
    fn let_go(&mut self, keep: usize) {
        let last_committed = self.earlier.iter().position(|earlier| earlier.is_committed);
        let is_needed = |at: usize| !self.is_committed && (at == 0 || Some(at) == last_committed);
        let needed = (0..self.earlier.len()).filter(|at| is_needed(*at)).count();
        let (mut at, mut left) = (0, keep.saturating_sub(needed));
        self.earlier.retain(|_| {
            let (needed, more) = (is_needed(at), left > 0);
            at += 1;
            left -= usize::from(!needed && more);
            needed || more
        });
    }

    /// The generation to go back to when none is named: the last that served before, older than what serves.
    fn before(&self, name: &str) -> Result<&Earlier, RollbackError> {
        let live = &self.live.generation;
        let before = self.earlier.iter().find(|earlier| earlier.setup.generation.number() < live.number());
        before.ok_or_else(|| RollbackError::Nothing(name.to_owned(), self.kept().map(|kept| kept.number()).collect()))
    }

    fn numbered(&self, name: &str, number: u64) -> Result<&Earlier, RollbackError> {
        if self.live.generation.number() == number {
            return Err(RollbackError::Serves(name.to_owned(), number));
        }
        let gone = || RollbackError::Gone(name.to_owned(), number, self.kept().map(|kept| kept.number()).collect());
        self.earlier.iter().find(|earlier| earlier.setup.generation.number() == number).ok_or_else(gone)
    }

    /// Goes back by itself, as `fallback`; what left.
    fn fall_back(&mut self, fallback: Member) -> Arc<Generation> {
        let before = self.earlier.remove(0);
        self.is_committed = before.is_committed;
        std::mem::replace(&mut self.live, fallback).generation
    }

    /// Goes back as somebody asked for, which commits it. What served stays kept, so that one may also go forward again by its number.
    fn go_back(&mut self, target: Setup, keep: usize) {
        self.earlier.retain(|kept| kept.setup.generation.key() != target.generation.key());
        self.replace(Member::anew(target), keep);
        self.commit(keep);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::live::generation::{Ended, Ends, Identity};

    /// Who hears of what becomes of generations here: nobody but the test.
    pub(crate) fn ends() -> (Ends, Receiver<Ended>) {
        let ((reaper, ended), (alarms, _)) = (channel(), channel());
        (Ends { reaper, alarms }, ended)
    }

    pub(crate) fn identity(plugin: &str, number: u64) -> Identity {
        let (digest, code) = (format!("{plugin}{number}"), String::new());
        Identity { plugin: plugin.to_owned(), number, digest, code, file: "".into() }
    }

    pub(crate) fn generation(plugin: &str, number: u64, ends: &Ends) -> Arc<Generation> {
        Generation::without_code(identity(plugin, number), ends.clone(), Box::new(()))
    }

    pub(crate) fn setup(generation: &Arc<Generation>) -> Setup {
        Setup { generation: Arc::clone(generation), config: Config::none() }
    }

    /// Of a snapshot: `a=1 b=2`.
    pub(crate) fn shown(snapshot: &Snapshot) -> String {
        snapshot.generations().iter().map(|generation| generation.to_string()).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn ended(ended: &Receiver<Ended>) -> Vec<String> {
        let told = ended.try_iter().filter_map(|ended| match ended {
            Ended::Term { plugin, number } => Some(format!("{plugin}={number}")),
            Ended::Config { .. } | Ended::Use { .. } => None,
        });
        told.collect()
    }

    #[cfg(not(midair_loom))]
    #[test]
    fn fault_20_what_is_compared_isnt_committed_and_goes_on_over_other_publishes_until_its_own_way_back_is_gone() {
        let (ends, _heard) = ends();
        let (rules, now) = (Rules { time: Duration::ZERO, requests: 0, ..Rules::PRODUCTION }, Instant::now());
        let mut rollout = Rollout::new(4);
        let publish = |rollout: &mut Rollout, plugin: &str, number| {
            let new = generation(plugin, number, &ends);
            rollout.publish(&[setup(&new)], &[], Origin::Path, &rules, now).expect("no routes, no clash");
            new.key()
        };
        let compared = |rollout: &mut Rollout| -> Vec<String> {
            rollout
                .compared()
                .iter()
                .map(|compared| format!("{} or {}", compared.comparison.generation(), shown(&compared.back)))
                .collect()
        };
        let suspect = |rollout: &mut Rollout, key| rollout.suspect(key, &rules, now).map(|before| before.to_string());
        let first = publish(&mut rollout, "a", 1);
        assert_eq!(suspect(&mut rollout, first), None, "there is nothing before it");
        assert_eq!(rollout.commit(&rules, now).concat().len(), 1);
        assert_eq!(suspect(&mut rollout, first), None, "it is committed");
        let second = publish(&mut rollout, "a", 2);
        assert_eq!(suspect(&mut rollout, second).as_deref(), Some("a=1"));
        assert_eq!(suspect(&mut rollout, second), None, "it is being compared");
        assert_eq!(compared(&mut rollout), [format!("{second} or a=1")]);
        let later = now + crate::live::comparison::LONGEST;
        assert_eq!(
            (rollout.commit(&rules, later).len(), rollout.due(&rules, later)),
            (0, Some(Duration::ZERO)),
            "first it is decided"
        );
        publish(&mut rollout, "b", 1);
        assert_eq!(compared(&mut rollout), [format!("{second} or a=1 b=1")], "with what serves by now");
        rollout.acquit(second);
        assert_eq!(compared(&mut rollout), Vec::<String>::new());
        assert_eq!(suspect(&mut rollout, second).as_deref(), Some("a=1"), "once more");
        publish(&mut rollout, "a", 3);
        assert_eq!(compared(&mut rollout), Vec::<String>::new(), "other code took its place");
        assert_eq!(rollout.commit(&rules, later).concat().len(), 2);
    }

    #[cfg(not(midair_loom))]
    #[test]
    fn what_is_on_trial_is_committed_when_both_time_and_requests_are_there() {
        let (ends, _heard) = ends();
        let (rules, start) = (Rules { requests: 3, ..Rules::PRODUCTION }, Instant::now());
        let mut rollout = Rollout::new(4);
        let first = generation("a", 1, &ends);
        first.counts().try_against(rules, None, true);
        rollout.publish(&[setup(&first)], &[], Origin::Path, &rules, start).expect("no routes, no clash");
        assert_eq!(rollout.due(&rules, start), Some(rules.time));
        let answer = |count| {
            for _ in 0..count {
                first.counts().answered(false, None, true);
            }
        };
        let committed = |rollout: &mut Rollout, after: Duration| rollout.commit(&rules, start + after).concat().len();
        answer(2);
        assert_eq!(committed(&mut rollout, rules.time * 2), 0, "too few requests");
        answer(1);
        assert_eq!(committed(&mut rollout, rules.time - Duration::from_nanos(1)), 0, "too early");
        assert_eq!(committed(&mut rollout, rules.time), 1);
        assert_eq!((committed(&mut rollout, rules.time * 2), rollout.due(&rules, start)), (0, None), "once");
        let failed = generation("a", 2, &ends);
        failed.counts().try_against(rules, None, true);
        rollout.publish(&[setup(&failed)], &[], Origin::Path, &rules, start).expect("no routes, no clash");
        (0..5).for_each(|_| drop(failed.counts().answered(true, None, true).map(|verdict| format!("{verdict:?}"))));
        assert_eq!(committed(&mut rollout, rules.time), 0, "it failed, whoever has heard of it");
        assert_eq!(rollout.due(&Rules { time: Duration::MAX, ..rules }, start), Some(Duration::MAX), "no time is too long");
        // What an earlier run committed needs its time alone.
        let mut rollout = Rollout::new(4);
        rollout.publish(&[setup(&generation("a", 1, &ends))], &[], Origin::Recovered, &rules, start).expect("no routes, no clash");
        assert_eq!(committed(&mut rollout, rules.time / 2), 0);
        assert_eq!(committed(&mut rollout, rules.time), 1);
    }

    #[cfg(not(midair_loom))]
    #[test]
    fn what_fails_with_nothing_before_it_stays_on_trial_and_is_judged_anew() {
        let (ends, _heard) = ends();
        let (rules, now) = (Rules { time: Duration::ZERO, requests: 3, ..Rules::PRODUCTION }, Instant::now());
        let again = now + Duration::from_secs(10);
        let mut rollout = Rollout::new(4);
        let first = generation("a", 1, &ends);
        rollout.publish(&[setup(&first)], &[], Origin::Path, &rules, now).expect("no routes, no clash");
        let answers = |failed, count| (0..count).for_each(|_| drop(first.counts().answered(failed, None, true)));
        let committed = |rollout: &mut Rollout| rollout.commit(&rules, again).concat().len();
        answers(true, rules.in_a_row);
        assert!(rollout.breach(first.key(), now, again).is_none(), "there is nothing to go back to");
        assert_eq!(rollout.due(&rules, now), Some(Duration::from_secs(10)));
        rollout.rearm(again - Duration::from_nanos(1));
        answers(false, 3);
        assert_eq!(committed(&mut rollout), 0, "too early");
        rollout.rearm(again);
        assert_eq!((committed(&mut rollout), rollout.due(&rules, again)), (0, None), "what it answered before doesn't count");
        answers(false, 3);
        assert_eq!(committed(&mut rollout), 1);
    }

    #[cfg(not(midair_loom))]
    #[test]
    fn one_goes_back_step_by_step_through_what_was_never_committed() {
        let (ends, _heard) = ends();
        let (rules, now) = (Rules { time: Duration::ZERO, requests: 3, ..Rules::PRODUCTION }, Instant::now());
        let mut rollout = Rollout::new(0);
        let all = [1, 2, 3].map(|number| generation("a", number, &ends));
        let answers = |of: &Generation| (0..3).for_each(|_| drop(of.counts().answered(false, None, true)));
        for generation in &all {
            rollout.publish(&[setup(generation)], &[], Origin::Path, &rules, now).expect("no routes, no clash");
            if generation.number() == 1 {
                answers(generation);
                assert_eq!(rollout.commit(&rules, now).concat().len(), 1);
            }
        }
        let breach = |rollout: &mut Rollout, of: &Generation| {
            let plan = rollout.breach(of.key(), now, now).expect("a way back");
            rollout.renew();
            (shown(&plan.snapshot), plan.settles.len())
        };
        assert_eq!(rollout.before("a"), Some((2, false)));
        assert_eq!(breach(&mut rollout, &all[2]), ("a=2".to_owned(), 0), "it is on trial again");
        assert_eq!(rollout.before("a"), Some((1, true)));
        assert_eq!(breach(&mut rollout, &all[1]), ("a=1".to_owned(), 1), "it was committed");
        assert!(rollout.breach(all[0].key(), now, now).is_none());
    }

    #[cfg(not(midair_loom))]
    #[test]
    fn by_hand_one_goes_back_step_by_step_and_forward_by_number() {
        let (ends, _heard) = ends();
        let (rules, now) = (Rules { acts: false, ..Rules::PRODUCTION }, Instant::now());
        let mut rollout = Rollout::new(2);
        assert_eq!(rollout.back(&Which::Last).err(), Some(RollbackError::Never));
        for number in 1..=5 {
            rollout
                .publish(&[setup(&generation("a", number, &ends))], &[], Origin::Path, &rules, now)
                .expect("no routes, no clash");
        }
        let back = |rollout: &mut Rollout, which: &Which| rollout.back(which).map(|back| shown(&back.snapshot));
        let a = || "a".to_owned();
        assert_eq!(back(&mut rollout, &Which::Last), Ok("a=4".to_owned()));
        assert_eq!(back(&mut rollout, &Which::Plugin(a())), Ok("a=3".to_owned()));
        assert_eq!(back(&mut rollout, &Which::Plugin(a())), Err(RollbackError::Nothing(a(), vec![4, 5])), "two are kept");
        assert_eq!(back(&mut rollout, &Which::To(a(), 1)), Err(RollbackError::Gone(a(), 1, vec![4, 5])));
        assert_eq!(back(&mut rollout, &Which::To(a(), 3)), Err(RollbackError::Serves(a(), 3)));
        assert_eq!(back(&mut rollout, &Which::To(a(), 5)), Ok("a=5".to_owned()));
        assert_eq!(back(&mut rollout, &Which::Plugin("b".to_owned())), Err(RollbackError::Unknown("b".to_owned())));
    }

    /// Publishes another config for what serves, and gives it.
    #[cfg(not(midair_loom))]
    fn configure(rollout: &mut Rollout, generation: &Arc<Generation>) -> (Arc<Config>, Arc<Snapshot>) {
        let config = Config::none();
        let setup = Setup { generation: Arc::clone(generation), config: Arc::clone(&config) };
        let next = rollout.publish(&[], &[setup], Origin::Path, &Rules::PRODUCTION, Instant::now());
        let next = next.expect("no routes, no clash").snapshot;
        (config, next)
    }

    #[cfg(not(midair_loom))]
    fn has(snapshot: &Snapshot, plugin: &str, config: &Arc<Config>) -> bool {
        snapshot.member(plugin).is_some_and(|member| Arc::ptr_eq(&member.config, config))
    }

    #[cfg(not(midair_loom))]
    #[test]
    fn an_edit_of_the_config_is_no_trial_and_what_is_gone_back_to_keeps_its_own() {
        let (ends, heard) = ends();
        let (rules, now) = (Rules { time: Duration::ZERO, requests: 0, ..Rules::PRODUCTION }, Instant::now());
        let mut rollout = Rollout::new(4);
        let [a1, a2, b1] = [("a", 1), ("a", 2), ("b", 1)].map(|(plugin, number)| generation(plugin, number, &ends));
        rollout.publish(&[setup(&a1), setup(&b1)], &[], Origin::Path, &rules, now).expect("no routes, no clash").snapshot.begin();
        assert_eq!(rollout.commit(&rules, now).concat().len(), 2);
        let (first, next) = configure(&mut rollout, &a1);
        assert_eq!((shown(&next), next.epoch(), has(&next, "a", &first)), ("a=1 b=1".to_owned(), 2, true));
        assert!(rollout.commit(&rules, now).is_empty() && rollout.breach(a1.key(), now, now).is_none(), "nothing is on trial");
        drop(next);
        assert_eq!(ended(&heard), Vec::<String>::new(), "the term goes on");
        // New code on trial; then the configs of both plugins are edited.
        rollout.publish(&[setup(&a2)], &[], Origin::Path, &rules, now).expect("no routes, no clash");
        let (of_code, _) = configure(&mut rollout, &a2);
        let (of_other, next) = configure(&mut rollout, &b1);
        assert!(has(&next, "a", &of_code) && has(&next, "b", &of_other));
        let (_, stale) = configure(&mut rollout, &a1);
        assert!(has(&stale, "a", &of_code), "what another generation read is nobody's");
        let back = rollout.breach(a2.key(), now, now).expect("a way back");
        assert_eq!(shown(&back.snapshot), "a=1 b=1");
        assert!(has(&back.snapshot, "a", &first), "it serves with the config that it served with");
        assert!(has(&back.snapshot, "b", &of_other), "the other one keeps what was edited since");
        // By hand, and forward again.
        rollout.publish(&[setup(&a2)], &[], Origin::Recovered, &rules, now).expect("no routes, no clash");
        let (second, _) = configure(&mut rollout, &a2);
        let back = rollout.back(&Which::Plugin("a".to_owned())).expect("a way back");
        assert!(has(&back.snapshot, "a", &first));
        let forth = rollout.back(&Which::To("a".to_owned(), 2)).expect("a way forward");
        assert!(has(&forth.snapshot, "a", &second));
        assert_eq!(rollout.back(&Which::Last).map(|back| shown(&back.snapshot)), Ok("a=1 b=1".to_owned()), "an edit is no publish");
    }

    #[cfg(not(midair_loom))]
    #[test]
    fn fault_41_a_breach_takes_its_own_trial_back_and_no_other() {
        let (ends, heard) = ends();
        let (rules, now) = (Rules { time: Duration::ZERO, requests: 0, ..Rules::PRODUCTION }, Instant::now());
        let mut rollout = Rollout::new(4);
        let publish = |rollout: &mut Rollout, candidates: &[Arc<Generation>]| {
            let candidates: Vec<Setup> = candidates.iter().map(setup).collect();
            let next = rollout.publish(&candidates, &[], Origin::Path, &rules, now).expect("no routes, no clash").snapshot;
            next.begin();
            next
        };
        publish(&mut rollout, &[generation("a", 1, &ends), generation("b", 1, &ends)]);
        assert_eq!(rollout.commit(&rules, now).concat().len(), 2);
        publish(&mut rollout, &[generation("a", 2, &ends)]);
        let both = publish(&mut rollout, &[generation("b", 2, &ends)]);
        assert_eq!(shown(&both), "a=2 b=2");
        let [a2, b2] = [0, 1].map(|at| both.generations()[at].key());
        let back = rollout.breach(a2, now, now).expect("a way back");
        back.snapshot.begin();
        rollout.renew();
        assert_eq!((shown(&back.snapshot), back.snapshot.epoch()), ("a=1 b=2".to_owned(), 4));
        assert!(rollout.breach(a2, now, now).is_none(), "once");
        drop((both, back));
        // b is on trial still, and its own way back knows that a went back.
        let back = rollout.breach(b2, now, now).expect("a way back");
        assert_eq!(shown(&back.snapshot), "a=1 b=1");
        drop(rollout);
        // Of what serves no more, each term has ended once; a way back that wasn't taken never began.
        let mut told = ended(&heard);
        told.sort();
        assert_eq!(told, ["a=1", "a=2", "b=1", "b=2"]);
    }
}
