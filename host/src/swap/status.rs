//! What does a host tell of itself?

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::host::Host;
use super::shared::Shared;
use crate::live::config::Config;
use crate::live::generation::Generation;
use crate::live::lease::Facts;
use crate::live::rollout::Phase;
use crate::report::attempt::Record;
use crate::report::hold::Held;
use crate::resources::sockets::{Cause, Tally};
use crate::resources::tasks::{About, Running};
use crate::resources::topics::TopicStatus;
use crate::swap::budget::{Allowed, Budget, Used};
use crate::sys::native_resources::Counts;
use crate::sys::process;
use crate::trial::probe::Probe;
use crate::trial::table_scan;
use crate::work::jobs::JobStatus;

/// What `GET /status` answers.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The run's id.
    pub run: String,
    /// The process's id.
    pub pid: u32,
    /// Whether it is a development host.
    pub dev: bool,
    /// Whether new bytes are tried in a child process first.
    pub probe: bool,
    /// Publishes and rollbacks so far.
    pub epoch: u64,
    /// What serves.
    pub plugins: Vec<PluginStatus>,
    /// What is passed over unless it is forced, by plugin.
    pub held: BTreeMap<String, Vec<Held>>,
    /// Calls in flight, the oldest first.
    pub leases: Vec<LeaseStatus>,
    /// What runs beside requests, the oldest first.
    pub tasks: Vec<TaskStatus>,
    /// What is done again and again, by plugin and name.
    pub jobs: Vec<JobStatus>,
    /// Messages, by topic.
    pub topics: Vec<TopicStatus>,
    /// WebSockets, by plugin and route.
    pub sockets: Vec<SocketStatus>,
    /// How many rooms of WebSockets there are, by plugin.
    pub rooms: BTreeMap<String, usize>,
    /// The last attempts, the oldest first.
    pub attempts: Vec<Record>,
}

/// A serving plugin.
#[derive(Clone, Debug, Serialize)]
pub struct PluginStatus {
    /// Its name.
    pub plugin: String,
    /// Its generation's number.
    pub generation: u64,
    /// `trial` or `committed`.
    pub phase: &'static str,
    /// The generation that a rollback would put back.
    pub way_back: Option<u64>,
    /// Whether that one was ever committed.
    pub way_back_committed: bool,
    /// blake3 of its artifact, in hex.
    pub digest: String,
    /// The digest of the config that it serves with; null if it declares none.
    pub config: Option<String>,
    /// Calls in flight on any of its generations.
    pub leases: usize,
    /// Calls answered by this generation.
    pub requests: u64,
    /// Of these, with a status of 500 and above.
    pub errors: u64,
    /// Of these, by a panic.
    pub panics: u64,
    /// Libraries of this plugin that are mapped and don't serve.
    pub retained: usize,
    /// What all its libraries have in the process beside requests.
    pub census: Counts,
    /// How many values of its declared tables its code can't read, by table, where there are any.
    pub unreadable: BTreeMap<String, u64>,
}

/// A call in flight.
#[derive(Clone, Debug, Serialize)]
pub struct LeaseStatus {
    /// Unique within the run.
    pub id: u64,
    /// The plugin.
    pub plugin: String,
    /// The generation that it runs on.
    pub generation: u64,
    /// The handler.
    pub handler: String,
    /// Microseconds since it was admitted.
    pub age_us: u64,
}

/// The WebSockets of a route since the host began.
#[derive(Clone, Debug, Serialize)]
pub struct SocketStatus {
    /// The plugin.
    pub plugin: String,
    /// The route's path.
    pub route: String,
    /// There are now.
    pub open: u64,
    /// Accepted so far.
    pub opened: u64,
    /// Messages that wait to be sent.
    pub queued: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Closed since they read too slowly for a broadcast.
    pub overrun: u64,
    /// Closed since they took nothing of what was sent.
    pub stalled: u64,
    /// Closed since they gave no sign of life.
    pub silent: u64,
    /// Closed since their route was gone.
    pub removed: u64,
}

impl SocketStatus {
    fn of(((plugin, route), tally): ((String, String), Tally)) -> Self {
        let Tally { opened, ended, open, queued, queued_bytes } = tally;
        let by = |cause| ended.get(&cause).copied().unwrap_or_default();
        let (overrun, stalled, silent, removed) = (by(Cause::Overrun), by(Cause::Stalled), by(Cause::Silent), by(Cause::Removed));
        Self { plugin, route, open, opened, queued, queued_bytes, overrun, stalled, silent, removed }
    }
}

/// Work that goes on beside requests, and keeps the code that it runs on.
#[derive(Clone, Debug, Serialize)]
pub struct TaskStatus {
    /// Unique within the run.
    pub id: u64,
    /// The plugin.
    pub plugin: String,
    /// The generation that it runs on.
    pub generation: u64,
    /// Its name, or where it was spawned.
    pub task: String,
    /// Microseconds since it was spawned.
    pub age_us: u64,
    /// Microseconds for which it has held a thread without a pause; 0 if it waits.
    pub busy_us: u64,
    /// Whether it is dropped some time after its generation was replaced.
    pub until_retire: bool,
}

impl TaskStatus {
    fn of(running: Running) -> Self {
        let Running { id, about, age_us, busy_us } = running;
        let About { plugin, number, name, until_retire, .. } = about;
        Self { id, plugin, generation: number, task: name, age_us, busy_us, until_retire }
    }
}

/// What `GET /generations` answers.
#[derive(Clone, Debug, Serialize)]
pub struct Generations {
    /// All that exist, by plugin and number.
    pub generations: Vec<GenerationStatus>,
    /// What is mapped of all libraries that were ever opened.
    pub libraries: Libraries,
    /// What swaps use of what they may.
    pub budget: Budget,
}

/// A generation that serves, is kept, or can't go yet.
#[derive(Clone, Debug, Serialize)]
pub struct GenerationStatus {
    /// The plugin.
    pub plugin: String,
    /// Its number.
    pub generation: u64,
    /// `trial`, `committed`, `kept` to go back to, or `retired` and only held by calls.
    pub phase: &'static str,
    /// Whether it was ever committed.
    pub committed: bool,
    /// blake3 of its artifact, in hex.
    pub digest: String,
    /// What it has in the process beside calls.
    pub census: Counts,
    /// Calls that run on it.
    pub leases: Vec<LeaseStatus>,
    /// Calls, of any plugin, that were admitted while it served and hold it, though it doesn't serve any more.
    pub blockers: Vec<BlockerStatus>,
    /// Its work beside requests.
    pub tasks: Vec<TaskStatus>,
    /// Its private copy; empty if that is gone.
    pub file: String,
    /// The copy's length in bytes.
    pub file_bytes: u64,
}

/// A call that holds a generation.
#[derive(Clone, Debug, Serialize)]
pub struct BlockerStatus {
    /// The lease's id.
    pub lease: u64,
    /// What runs, as `plugin=generation handler`.
    pub call: String,
    /// Microseconds since it was admitted.
    pub age_us: u64,
}

/// What opened libraries take.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Libraries {
    /// Opened so far; none is ever closed.
    pub opened: usize,
    /// Mapped areas.
    pub maps: usize,
    /// Their length in bytes, shared with the page cache where nothing was written.
    pub mapped_bytes: u64,
}

/// A call in flight with what is known of it.
struct InFlight {
    facts: Facts,
    status: LeaseStatus,
}

impl Shared {
    fn in_flight(&self, known: &BTreeMap<u64, Arc<Generation>>) -> Vec<InFlight> {
        let of = |(id, facts, age): (u64, Facts, u64)| {
            let generation = known.get(&facts.generation)?;
            let handler = generation.handlers().get(facts.handler as usize).map(|handler| handler.name.clone());
            let (plugin, generation) = (generation.plugin().to_owned(), generation.number());
            let status = LeaseStatus { id, plugin, generation, handler: handler.unwrap_or_default(), age_us: age / 1_000 };
            Some(InFlight { facts, status })
        };
        self.context.leases.list().into_iter().filter_map(of).collect()
    }

    /// What swaps use of what they may, by what the system says now.
    pub(super) fn budget(&self) -> Budget {
        let copies = self.staging.folders();
        let lengths = copies.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        let used = Used {
            libraries: self.opened.lock().values().sum::<usize>() as u64,
            maps: process::maps().lines().count() as u64,
            descriptors: process::open_files(),
            bytes: lengths.filter_map(|entry| entry.metadata().ok()).map(|copy| copy.len()).sum(),
        };
        let allowed = Allowed {
            libraries: self.options.most_libraries.map(|most| most as u64),
            maps: process::most_maps(),
            descriptors: self.open_files,
            disk: copies.first().and_then(|folder| process::room(folder)),
        };
        Budget::of(used, allowed)
    }

    /// The call that holds replaced code for the longest time, in words.
    pub(super) fn oldest_blocker(&self) -> Option<String> {
        let known = self.known();
        let holds = |lease: &InFlight| known.values().any(|generation| generation.served().is_held_by(lease.facts.epoch));
        let oldest = self.in_flight(&known).into_iter().filter(holds).max_by_key(|lease| lease.status.age_us)?;
        let LeaseStatus { id, plugin, generation, handler, age_us } = oldest.status;
        let seconds = std::time::Duration::from_micros(age_us).as_secs_f64();
        Some(format!("{plugin}={generation} {handler}, lease {id}, for {seconds:.1} s"))
    }

    fn known(&self) -> BTreeMap<u64, Arc<Generation>> {
        self.known.lock().iter().filter_map(|(key, generation)| Some((*key, generation.upgrade()?))).collect()
    }
}

impl Host {
    /// What serves, what is in flight and what was attempted.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let (snapshot, standing) = shared.cutover.standing();
        let leases: Vec<LeaseStatus> = shared.in_flight(&shared.known()).into_iter().map(|lease| lease.status).collect();
        let opened = shared.opened.lock().clone();
        let plugin = |(generation, config): (&Arc<Generation>, &Arc<Config>)| {
            let (name, counts) = (generation.plugin().to_owned(), generation.counts());
            let before = standing.before.get(&name).copied();
            PluginStatus {
                generation: generation.number(),
                phase: word(standing.of(generation)),
                way_back: before.map(|(number, _)| number),
                way_back_committed: before.is_some_and(|(_, committed)| committed),
                digest: generation.digest().to_owned(),
                config: config.digest().map(str::to_owned),
                leases: leases.iter().filter(|lease| lease.plugin == name).count(),
                requests: counts.requests.load(Relaxed),
                errors: counts.errors.load(Relaxed),
                panics: counts.panics.load(Relaxed),
                retained: opened.get(&name).map_or(0, |opened| opened.saturating_sub(1)),
                census: shared.roll.counts(&name),
                unreadable: table_scan::unreadable(generation),
                plugin: name,
            }
        };
        let held = shared.recovery.all().into_iter().filter(|(_, mark)| !mark.held.is_empty());
        Status {
            run: shared.run.clone(),
            pid: std::process::id(),
            dev: shared.options.dev,
            probe: shared.options.probe == Probe::On,
            epoch: snapshot.epoch(),
            plugins: snapshot.generations().iter().zip(snapshot.configs()).map(plugin).collect(),
            held: held.map(|(plugin, mark)| (plugin, mark.held)).collect(),
            leases,
            tasks: shared.context.tasks.list().into_iter().map(TaskStatus::of).collect(),
            jobs: shared.jobs.list(),
            topics: shared.context.messages.list(),
            sockets: shared.context.sockets.tallies().into_iter().map(SocketStatus::of).collect(),
            rooms: shared.context.sockets.rooms(),
            attempts: shared.journal.records(),
        }
    }

    /// Every generation that still exists, with the calls that hold it.
    #[must_use]
    pub fn generations(&self) -> Generations {
        let shared = &self.shared;
        let known = shared.known();
        let in_flight = shared.in_flight(&known);
        let (_, standing) = shared.cutover.standing();
        let of = |generation: &Arc<Generation>| {
            let served = generation.served();
            let file = generation.file();
            let file_bytes = fs::metadata(file).map(|file| file.len());
            let blocks = in_flight.iter().filter(|lease| served.is_held_by(lease.facts.epoch)).map(|lease| {
                let LeaseStatus { id, plugin, generation, handler, age_us } = &lease.status;
                BlockerStatus { lease: *id, call: format!("{plugin}={generation} {handler}"), age_us: *age_us }
            });
            GenerationStatus {
                plugin: generation.plugin().to_owned(),
                generation: generation.number(),
                phase: word(standing.of(generation)),
                committed: generation.is_committed(),
                digest: generation.digest().to_owned(),
                census: generation.code().map(|code| code.census().counts()).unwrap_or_default(),
                leases: in_flight
                    .iter()
                    .filter(|lease| lease.facts.generation == generation.key())
                    .map(|lease| lease.status.clone())
                    .collect(),
                blockers: blocks.collect(),
                tasks: shared.context.tasks.of(generation.key()).into_iter().map(TaskStatus::of).collect(),
                file: if file_bytes.is_ok() { file.display().to_string() } else { String::new() },
                file_bytes: file_bytes.unwrap_or_default(),
            }
        };
        let mut generations: Vec<GenerationStatus> =
            known.values().filter(|generation| !generation.is_candidate()).map(of).collect();
        generations.sort_by(|a, b| (&a.plugin, a.generation).cmp(&(&b.plugin, b.generation)));
        let opened = shared.opened.lock().values().sum();
        Generations { generations, libraries: mapped(&shared.staging.folders(), opened), budget: shared.budget() }
    }
}

fn word(phase: Option<Phase>) -> &'static str {
    match phase {
        Some(Phase::Trial) => "trial",
        Some(Phase::Committed) => "committed",
        Some(Phase::Kept) => "kept",
        None => "retired",
    }
}

/// What the system says is mapped of the files in these folders, also of those that were removed.
fn mapped(folders: &[PathBuf], opened: usize) -> Libraries {
    let maps = process::maps();
    let mut libraries = Libraries { opened, ..Libraries::default() };
    let folders: Vec<_> = folders.iter().map(|folder| format!("{}/", folder.display())).collect();
    for mapping in process::files(&maps).filter(|mapping| folders.iter().any(|folder| mapping.file.contains(folder))) {
        libraries.maps += 1;
        libraries.mapped_bytes += mapping.bytes;
    }
    libraries
}
