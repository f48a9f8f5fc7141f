//! How is an attempt taken from its artifacts to its record?

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use midair_abi::manifest::Manifest;

use super::cutover::Performed;
use super::options::Artifact;
use super::shared::Shared;
use super::signals;
use super::supervisor::{committed, read};
use crate::report::attempt::{Attempt, Outcome, Part, Record};

use crate::artifact::inspect::{self, Inspected, inspect};
use crate::artifact::stage::Staged;
use crate::live::config::{Config, File};
use crate::live::generation::{Generation, Identity};
use crate::live::probation::Verdict;
use crate::live::refusal::Refusal;
use crate::live::rollout::Origin;
use crate::live::snapshot::{Member, Setup, Snapshot};
use crate::mutation::{self, Bug};
use crate::report::error::{Code, Error, Result, Stage};
use crate::report::event::Event;
use crate::report::hold::Held;
use crate::trial::candidate::{self, Maker};
use crate::trial::probe::{self, Probe, Standby};
use crate::trial::table_scan::First;
use crate::work::gates;

/// An attempt that waits for its turn.
pub(super) struct Job {
    pub(super) attempt: Attempt,
    pub(super) artifacts: Vec<Artifact>,
    /// Whether these are the bytes that an earlier run committed.
    pub(super) origin: Origin,
    pub(super) done: Sender<Record>,
}

/// The thread that takes attempts through. It never runs plugin code itself.
pub(super) struct Journey {
    shared: Arc<Shared>,
    /// The last number given, by plugin.
    numbers: BTreeMap<String, u64>,
    maker: Maker,
    /// What was said about artifacts: each once a run.
    remarked: BTreeSet<String>,
    /// The config file as it was read last: if it vanishes, that stays.
    config: File,
}

/// An artifact that was judged.
struct Judged {
    artifact: Artifact,
    staged: Staged,
    manifest: Manifest,
}

/// A candidate with its config, and the file that its code came from.
struct Candidate {
    setup: Setup,
    staged: Staged,
}

/// What came of the steps before publish.
#[derive(Default)]
struct Prepared {
    candidates: Vec<Candidate>,
    /// Plugins and digests of what a next run would hear of if this one died now.
    started: Vec<(String, String)>,
    /// What serves already, with the config that it is to go on with.
    configs: Vec<Setup>,
    unchanged: Vec<Part>,
    /// Passed over, as they were rolled back.
    held: Vec<(String, Held)>,
}

impl Journey {
    pub(super) fn new(shared: Arc<Shared>, maker: Maker) -> Self {
        let config = File::missing(shared.options.config.as_deref());
        Self { shared, numbers: BTreeMap::new(), maker, remarked: BTreeSet::new(), config }
    }

    pub(super) fn run(mut self, orders: &Receiver<Job>) {
        while let Ok(first) = orders.recv() {
            let mut jobs: Vec<Job> = std::iter::once(first).chain(orders.try_iter()).collect();
            while !jobs.is_empty() {
                let Job { attempt, artifacts, origin, done } = jobs.remove(0);
                let covers =
                    |later: &Attempt| later.is_forced() >= attempt.is_forced() && later.configures() >= attempt.configures();
                let again = |later: &Job| covers(&later.attempt) && same(&later.artifacts, &artifacts);
                let record = if jobs.iter().any(again) {
                    attempt.supersede(&self.shared.journal, &self.shared.context.bus)
                } else {
                    self.attempt_or_break(attempt, &artifacts, origin)
                };
                // Whoever asked may be gone; the journal has the record.
                let _ = done.send(record);
                jobs.extend(orders.try_iter());
            }
        }
    }

    /// A fault of the host's own in a journey ends that attempt and no more.
    fn attempt_or_break(&mut self, attempt: Attempt, artifacts: &[Artifact], origin: Origin) -> Record {
        let spare = attempt.spare();
        let record = catch_unwind(AssertUnwindSafe(|| self.attempt(attempt, artifacts, origin))).unwrap_or_else(|_| {
            let error = Error::rejected(Code::Internal, Stage::Load, "", "the journey broke; standard error has the panic");
            self.shared.reject(spare, &error.help("this is a fault in midair: please report it"))
        });
        self.shared.known.lock().retain(|_, generation| generation.strong_count() > 0);
        record
    }

    fn attempt(&mut self, mut attempt: Attempt, artifacts: &[Artifact], origin: Origin) -> Record {
        let mut prepared = Prepared::default();
        match self.prepare(&mut attempt, artifacts, origin, &mut prepared) {
            Ok(()) => self.publish(attempt, prepared, origin),
            Err(error) => self.refuse(attempt, &prepared.candidates, &prepared.started, &error),
        }
    }

    fn refuse(&self, attempt: Attempt, candidates: &[Candidate], started: &[(String, String)], error: &Error) -> Record {
        candidates.iter().for_each(|candidate| gates::revoke(&candidate.setup.generation));
        started.iter().for_each(|(plugin, digest)| self.shared.recovery.drops(plugin, digest));
        self.shared.reject(attempt, error)
    }

    /// Every step before publish that looks at an artifact. `prepared` has what was made so far, whatever is returned.
    fn prepare(&mut self, attempt: &mut Attempt, artifacts: &[Artifact], origin: Origin, prepared: &mut Prepared) -> Result<()> {
        attempt.time(Stage::Inspect, || self.read_config())?;
        let now = self.shared.slot.now();
        // A process takes its time to start, as the disk does.
        let mut standby = (self.shared.options.probe == Probe::On && !artifacts.is_empty()).then(probe::stand_by).flatten();
        let (mut changed, mut names) = (Vec::new(), BTreeSet::new());
        for artifact in artifacts {
            let judged = self.judge(attempt, artifact, origin)?;
            if origin != Origin::Path {
                self.is_what_was_kept(&judged)?;
            }
            let (name, digest) = (&judged.manifest.name, judged.staged.digest());
            if !names.insert(name.clone()) {
                let reason = format!("two artifacts hold the plugin {name}");
                return Err(Error::rejected(Code::Usage, Stage::Inspect, artifact.path.display().to_string(), reason));
            }
            if attempt.is_forced() {
                changed.push(judged);
            } else if let Some(live) =
                now.generation(name).filter(|live| live.runs(digest, judged.staged.code()) || mutation::is(Bug::AlwaysUnchanged))
            {
                prepared.unchanged.push(live.part());
            } else if let Some(held) = self.shared.recovery.of(name).held(digest) {
                prepared.held.push((name.clone(), held.clone()));
            } else {
                changed.push(judged);
            }
        }
        if let ([(name, held), ..], true, true) = (&prepared.held[..], changed.is_empty(), prepared.unchanged.is_empty()) {
            return Err(Error::rejected(Code::Held, Stage::Stage, name.as_str(), format!("these bytes are held: {}", held.reason))
                .help("put other bytes in their place, or have these taken again with `midair reload --force`"));
        }
        self.fits(&changed)?;
        for judged in &changed {
            self.probe(attempt, judged, standby.take())?;
        }
        self.mark(&changed, origin, prepared)?;
        for judged in changed {
            self.candidate(attempt, judged, prepared)?;
        }
        if attempt.configures() {
            attempt.time(Stage::Check, || self.configure(&now, artifacts.is_empty(), prepared))?;
        }
        if origin == Origin::Recovered {
            // It served with these values before: after a rollback some may be of a form that it doesn't know. They are told once it serves.
            return Ok(());
        }
        attempt.time(Stage::Try, || {
            let tried = |candidate: &Candidate| candidate::try_tables(&candidate.setup.generation, self.shared.options.deadline);
            prepared.candidates.iter().try_for_each(tried)
        })
    }

    /// Reads the config file as it is by now.
    fn read_config(&mut self) -> Result<()> {
        if let Some(path) = &self.shared.options.config
            && let Some(read) = File::read(path)?
        {
            self.config = read;
        }
        Ok(())
    }

    /// Has what serves read its section, where that says something new. If no artifacts came, those with nothing new are unchanged.
    fn configure(&mut self, now: &Snapshot, alone: bool, prepared: &mut Prepared) -> Result<()> {
        for (generation, before) in now.generations().iter().zip(now.configs()) {
            let plugin = generation.plugin();
            if prepared.candidates.iter().any(|candidate| candidate.setup.generation.plugin() == plugin) {
                continue;
            }
            let section = self.config.section(plugin);
            let config = if before.says(&section) {
                Config::none()
            } else {
                candidate::configure(generation, &section, self.shared.options.deadline)?
            };
            if config.is_declared() {
                prepared.unchanged.retain(|part| part.plugin != plugin);
                prepared.configs.push(Setup { generation: Arc::clone(generation), config });
            } else if alone {
                prepared.unchanged.push(generation.part());
            }
        }
        Ok(())
    }

    /// Tells of sections that nobody reads, each once. As long as a plugin is missing, its section may be one of those.
    fn remark_on_config(&mut self, live: &Snapshot) {
        if live.generations().len() < *self.shared.expected.lock() {
            return;
        }
        let plugins: Vec<&str> = live.generations().iter().map(|generation| generation.plugin()).collect();
        let mut remarks = self.config.strangers(&plugins);
        for (generation, config) in live.generations().iter().zip(live.configs()) {
            if self.config.has(generation.plugin()) && !config.is_declared() {
                remarks.push(self.config.section(generation.plugin()).unread());
            }
        }
        for message in remarks {
            if self.remarked.insert(message.clone()) {
                self.shared.context.bus.say(Event::Warning { message });
            }
        }
    }

    /// Copies an artifact. What was kept is opened where it lies if there is no room to copy it: better served so than not at all.
    fn stage(&self, artifact: &Artifact, id: u64, origin: Origin) -> Result<Staged> {
        let copied = self.shared.staging.copy(&artifact.path, id);
        match copied {
            Err(error) if origin != Origin::Path && error.code() == Code::Io => {
                let staged = self.shared.staging.adopt(&artifact.path)?;
                let message = format!("{}: {}; it is started where it lies", artifact.plugin, error.reason());
                self.shared.context.bus.say(Event::Warning { message });
                Ok(staged)
            }
            copied => copied,
        }
    }

    fn judge(&mut self, attempt: &mut Attempt, artifact: &Artifact, origin: Origin) -> Result<Judged> {
        let (id, shared) = (attempt.id(), Arc::clone(&self.shared));
        let options = &shared.options;
        let staged = attempt.time(Stage::Stage, || self.stage(artifact, id, origin))?;
        let rules = inspect::Rules { run_paths: options.run_paths, libraries: options.allow_libraries.as_deref() };
        let Inspected { manifest, remarks } = attempt.time(Stage::Inspect, || inspect(staged.path(), &artifact.path, rules))?;
        for message in remarks {
            if self.remarked.insert(message.clone()) {
                shared.context.bus.say(Event::Warning { message });
            }
        }
        if !artifact.plugin.is_empty() && artifact.plugin != manifest.name {
            let reason = format!("it holds the plugin {}, not {}", manifest.name, artifact.plugin);
            return Err(Error::rejected(Code::Abi, Stage::Inspect, artifact.path.display().to_string(), reason));
        }
        Ok(Judged { artifact: artifact.clone(), staged, manifest })
    }

    /// Whether there is room for these, before anything of them is opened anywhere.
    fn fits(&self, changed: &[Judged]) -> Result<()> {
        let names: Vec<&str> = changed.iter().map(|judged| judged.manifest.name.as_str()).collect();
        if names.is_empty() || mutation::is(Bug::BudgetIgnored) {
            return Ok(());
        }
        let Some(over) = self.shared.budget().over(names.len() as u64) else { return Ok(()) };
        let reason = format!("there is no room for one more generation: {over}");
        Err(Error::rejected(Code::Budget, Stage::Load, names.join(", "), reason)
            .help(over.help(self.shared.oldest_blocker().as_deref())))
    }

    /// Tries new bytes in a child process, before anything of them is opened here.
    fn probe(&self, attempt: &mut Attempt, judged: &Judged, standby: Option<Standby>) -> Result<()> {
        let options = &self.shared.options;
        if options.probe == Probe::Off {
            return Ok(());
        }
        let order = probe::Order {
            path: judged.staged.path().to_owned(),
            plugin: judged.manifest.name.clone(),
            number: self.next_number(&judged.manifest.name),
            digest: judged.staged.digest().to_owned(),
            dev: options.dev,
            deadline: options.deadline,
            config: self.config.section(&judged.manifest.name),
        };
        let tried = attempt.time(Stage::Probe, || probe::try_out(&order, standby, &self.shared.context.logs));
        if mutation::is(Bug::ProbeIgnored) { Ok(()) } else { tried }
    }

    fn next_number(&self, plugin: &str) -> u64 {
        self.numbers.get(plugin).map_or(1, |last| last + 1)
    }

    /// A disk may forget, and a folder be meddled with.
    fn is_what_was_kept(&self, judged: &Judged) -> Result<()> {
        let (plugin, digest) = (&judged.manifest.name, judged.staged.digest());
        if judged.artifact.path == self.shared.recovery.copy_of(plugin, digest) {
            return Ok(());
        }
        let path = judged.artifact.path.display().to_string();
        let reason = format!("these aren't the bytes of {plugin} that were kept, but {}", &digest[..16]);
        Err(Error::rejected(Code::Hash, Stage::Stage, path, reason).help("what lies at the artifact's own path is tried instead"))
    }

    fn candidate(&mut self, attempt: &mut Attempt, judged: Judged, prepared: &mut Prepared) -> Result<()> {
        let Judged { artifact, staged, manifest } = judged;
        let number = self.next_number(&manifest.name);
        let (digest, code, file) = (staged.digest().to_owned(), staged.code().to_owned(), staged.path().to_owned());
        let file = if mutation::is(Bug::OpensThePath) { artifact.path.clone() } else { file };
        let identity = Identity { plugin: manifest.name, number, digest, code, file };
        let name = format!("{}={number}", identity.plugin);
        // What was taken before isn't this one's doing.
        signals::look(&self.shared, None);
        let made = self.maker.make(attempt, identity);
        if made.is_err() {
            signals::look(&self.shared, Some((&name, "while it was opened and put together")));
        }
        self.shared.opened.lock().clone_from(self.maker.opened());
        let generation = made?;
        let section = self.config.section(generation.plugin());
        let config = attempt
            .time(Stage::Check, || candidate::configure(&generation, &section, self.shared.options.deadline))
            .inspect_err(|_| gates::revoke(&generation))?;
        let setup = Setup { generation: Arc::clone(&generation), config };
        prepared.candidates.push(Candidate { setup: setup.clone(), staged });
        self.shared.known.lock().insert(generation.key(), Arc::downgrade(&generation));
        signals::look(&self.shared, Some((&name, "while it was opened and put together")));
        if let Some(code) = generation.code() {
            self.shared.roll.enter(generation.plugin(), Arc::clone(code.census()));
        }
        if mutation::is(Bug::StoreBeforeInit) {
            let _ = self.store(std::slice::from_ref(&setup), &[], Origin::Path);
        }
        let started = attempt.time(Stage::Init, || candidate::init(&setup, self.shared.options.deadline));
        signals::look(&self.shared, Some((&name, "in its init")));
        started
    }

    /// Writes down what is about to be started, for a next run in case this one dies of it, and waits until that is on the disk.
    fn mark(&self, changed: &[Judged], origin: Origin, prepared: &mut Prepared) -> Result<()> {
        let live = self.shared.slot.now();
        for Judged { artifact, staged, manifest } in changed {
            let source = (origin == Origin::Path).then_some(artifact.path.as_path());
            self.shared.recovery.starts(&manifest.name, staged.digest(), source, live.generation(&manifest.name));
            prepared.started.push((manifest.name.clone(), staged.digest().to_owned()));
        }
        let plugins: Vec<&str> = changed.iter().map(|judged| judged.manifest.name.as_str()).collect();
        match self.shared.recovery.flush(Some(&plugins), None) {
            Err(error) if origin == Origin::Path => Err(error),
            // Better served without than not at all; that it can't be written is told.
            _ => Ok(()),
        }
    }

    /// The one store. All that can be refused here is a clash of routes, and that before anything is changed.
    fn publish(&mut self, mut attempt: Attempt, prepared: Prepared, origin: Origin) -> Record {
        let shared = Arc::clone(&self.shared);
        let Prepared { candidates, started, configs, unchanged, held } = prepared;
        let (bus, id, trigger) = (&shared.context.bus, attempt.id(), attempt.trigger().to_owned());
        let say_others = || {
            for Part { plugin, digest, generation } in unchanged.clone() {
                bus.say(Event::Unchanged { attempt: id, plugin, generation, digest, trigger: trigger.clone() });
            }
            for (plugin, Held { digest, by, reason }) in held.clone() {
                bus.say(Event::Held { plugin, digest, by, reason });
            }
        };
        if candidates.is_empty() && configs.is_empty() {
            let record = attempt.finish(Outcome::Unchanged, unchanged.clone(), &shared.journal);
            say_others();
            self.remark_on_config(&shared.slot.now());
            return record;
        }
        let setups: Vec<Setup> = candidates.iter().map(|candidate| candidate.setup.clone()).collect();
        let generations: Vec<Arc<Generation>> = setups.iter().map(|setup| Arc::clone(&setup.generation)).collect();
        let before = match attempt.time(Stage::Publish, || self.store(&setups, &configs, origin)) {
            Ok(Performed { before, .. }) => before,
            Err(refusal) => return self.refuse(attempt, &candidates, &started, &clash(&generations, &refusal)),
        };
        // Read back through the live table: only what really answers is said to be published.
        let live = shared.slot.now();
        let seen = generations.iter().filter_map(|candidate| live.generation(candidate.plugin()));
        let published: Vec<Part> = if mutation::is(Bug::SaysUnseen) {
            generations.iter().map(|generation| generation.part()).collect()
        } else {
            seen.map(|generation| generation.part()).collect()
        };
        let goes_on = |setup: &&Setup| {
            let is_it =
                |member: Member| member.generation.key() == setup.generation.key() && Arc::ptr_eq(&member.config, &setup.config);
            live.member(setup.generation.plugin()).is_some_and(is_it)
        };
        let configured: Vec<&Setup> = configs.iter().filter(goes_on).collect();
        let parts = published.iter().cloned().chain(configured.iter().map(|setup| setup.generation.part())).collect();
        // The record first: who hears of it finds the record.
        let record = attempt.finish(Outcome::Published, parts, &shared.journal);
        say_others();
        for Setup { generation, config } in configured {
            bus.say(Event::Configured {
                attempt: id,
                plugin: generation.plugin().to_owned(),
                generation: generation.number(),
                config: config.digest().unwrap_or_default().to_owned(),
                epoch: live.epoch(),
                phases_us: record.phases_us.clone(),
                trigger: trigger.clone(),
            });
        }
        for Part { plugin, digest, generation } in published {
            let (epoch, phases_us, trigger) = (live.epoch(), record.phases_us.clone(), trigger.clone());
            bus.say(Event::Published { attempt: id, plugin, generation, digest, epoch, phases_us, trigger });
        }
        let in_flight = shared.context.leases.list();
        for old in generations.iter().filter_map(|candidate| before.generation(candidate.plugin())) {
            let leases = in_flight.iter().filter(|(_, facts, _)| facts.generation == old.key()).count();
            bus.say(Event::Retired { plugin: old.plugin().to_owned(), generation: old.number(), leases });
        }
        signals::look(&shared, None);
        self.remark_on_config(&live);
        for Candidate { setup: Setup { generation, .. }, staged } in candidates {
            generation.keep(staged);
            if !shared.options.rules.acts {
                shared.recovery.commits(&generation, committed(&generation)).into_iter().for_each(|event| bus.say(event));
            }
            let first = if origin == Origin::Recovered { told(&shared, &generation) } else { First::Blamed };
            read(&shared, &generation, first);
        }
        record
    }

    /// The one store of a publish.
    fn store(&mut self, setups: &[Setup], configs: &[Setup], origin: Origin) -> Result<Performed, Refusal> {
        let (shared, numbers) = (&self.shared, &mut self.numbers);
        let performed = shared.cutover.perform(|rollout| {
            let plan = rollout.publish(setups, configs, origin, &shared.options.rules, Instant::now())?;
            shared.recovery.publishes(&plan, shared.options.dev);
            // Taken, whatever becomes of the phases.
            let taken = setups.iter().filter(|_| !mutation::is(Bug::NumbersReused)).map(|setup| &setup.generation);
            numbers.extend(taken.map(|new| (new.plugin().to_owned(), new.number())));
            Ok(plan)
        })?;
        // Somebody has to know when it is due.
        setups.iter().for_each(|setup| setup.generation.alarm(Verdict::Begun));
        Ok(performed)
    }
}

/// What was committed serves in spite of values that it can't read, as it did before the restart, and it is said.
fn told(shared: &Shared, generation: &Arc<Generation>) -> First {
    let (bus, name) = (shared.context.bus.clone(), generation.to_string());
    First::Told(Box::new(move |misfit| {
        let message =
            format!("{name} was committed and serves, though it can't read all values: {misfit}; `midair status` counts them");
        bus.say(Event::Warning { message });
    }))
}

fn clash(candidates: &[Arc<Generation>], refusal: &Refusal) -> Error {
    let names: Vec<&str> = candidates.iter().map(|candidate| candidate.plugin()).collect();
    let help = match refusal {
        Refusal::Clash(_) => "each method and path has one handler; a file that holds another plugin than before adds its routes",
        Refusal::WayBack(..) => "wait until what is on trial is committed, or roll it back",
    };
    Error::rejected(Code::Routes, Stage::Try, names.join(", "), refusal.to_string()).help(help)
}

fn same(a: &[Artifact], b: &[Artifact]) -> bool {
    a.len() == b.len() && a.iter().all(|artifact| b.contains(artifact))
}
