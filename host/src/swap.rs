//! How does an artifact become what serves?
//!
//! The one room that sees both sides: files and libraries, snapshots and events. The journey runs on a thread of its own, one attempt at
//! a time; that thread never runs plugin code itself. All that can fail happens before the publish and leaves everything as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use midair_plugin::manifest::Manifest;
use midair_plugin::store::Memory;
use parking_lot::Mutex;
use serde::Serialize;

use crate::answer;
use crate::attempt::{Attempt, Journal, Outcome, Part, Record};
use crate::candidate::{self, Maker};
use crate::census::Roll;
use crate::deadline::{Overrun, within};
use crate::error::{Code, Error, Result, Stage};
use crate::event::{Bus, Event};
use crate::frames::Namer;
use crate::generation::{Generation, Identity, Remains, Services, go_live};
use crate::inspect::{inspect, loaded};
use crate::lease::Leases;
use crate::services;
use crate::slot::Slot;
use crate::snapshot::Snapshot;
use crate::stage::{Staged, Staging};

pub use crate::census::Counts;

/// How a host is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder for private copies; no other host may use it.
    pub data: PathBuf,
    /// Whether error texts may reach clients.
    pub dev: bool,
    /// How long opening a library, building its plugin, its `init` and the trial of a table may take, each.
    pub deadline: Duration,
}

impl Options {
    /// The defaults with this folder.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), dev: false, deadline: Duration::from_secs(10) }
    }
}

/// A file that holds a plugin's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The plugin's name as its builder knows it; empty to take what the manifest says.
    pub plugin: String,
    /// The file. It is read and copied, never opened in place.
    pub path: PathBuf,
}

/// What serves, and the way to replace it. Clones are the same host.
///
/// ```no_run
/// use midair::swap::{Artifact, Host, Options};
///
/// let host = Host::new(Options::new("/tmp/midair"))?;
/// let attempt = host.begin("started");
/// let record = host.swap(attempt, vec![Artifact { plugin: String::new(), path: "libshop.so".into() }]);
/// println!("{:?}", record.outcome);
/// # Ok::<(), midair::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
}

struct Shared {
    options: Options,
    run: String,
    services: Arc<Services>,
    slot: Slot,
    journal: Journal,
    staging: Staging,
    expected: Mutex<usize>,
    ending: AtomicBool,
    /// Every generation that still exists, by key.
    known: Mutex<BTreeMap<u64, Weak<Generation>>>,
    /// Libraries opened so far, by plugin; none is ever closed.
    opened: Mutex<BTreeMap<String, usize>>,
    roll: Roll,
}

struct Job {
    attempt: Attempt,
    artifacts: Vec<Artifact>,
    done: Sender<Record>,
}

/// What `GET /status` answers.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The run's id.
    pub run: String,
    /// The process's id.
    pub pid: u32,
    /// Whether it is a development host.
    pub dev: bool,
    /// Publishes so far.
    pub epoch: u64,
    /// What serves.
    pub plugins: Vec<PluginStatus>,
    /// Calls in flight, the oldest first.
    pub leases: Vec<LeaseStatus>,
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
    /// blake3 of its artifact, in hex.
    pub digest: String,
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

impl Host {
    /// A host in which nothing serves yet.
    ///
    /// # Errors
    ///
    /// If its folder can't be prepared or its threads can't be started.
    pub fn new(options: Options) -> Result<Self> {
        let staging = Staging::open(&options.data)?;
        let (reaper, remains) = channel();
        let bus = Bus::default();
        let leases = Leases::new();
        let services = Arc::new(Services {
            store: Memory::default(),
            bus: bus.clone(),
            leases,
            dev: options.dev,
            reaper,
            frames: Namer::start(bus.clone())?,
            functions: services::functions(),
        });
        let nothing = Snapshot::compose(0, Vec::new()).map_err(|clash| Error::fatal(Code::Routes, "", clash.to_string()))?;
        let shared = Arc::new(Shared {
            run: run_id(),
            services,
            slot: Slot::new(nothing),
            journal: Journal::default(),
            staging,
            expected: Mutex::new(1),
            ending: AtomicBool::new(false),
            known: Mutex::default(),
            opened: Mutex::default(),
            roll: Roll::default(),
            options,
        });
        let (jobs, orders) = channel();
        let deadline = shared.options.deadline;
        start("midair-reaper", move || reap(&remains, &bus, deadline))?;
        let maker = Maker::new(Arc::clone(&shared.services), deadline);
        let journey = Journey { shared: Arc::clone(&shared), numbers: BTreeMap::new(), maker };
        start("midair-journey", move || journey.run(&orders))?;
        Ok(Self { shared, jobs })
    }

    /// What happens, as it happens.
    #[must_use]
    pub fn events(&self) -> &Bus {
        &self.shared.services.bus
    }

    /// Answers a request within this process, as the HTTP host would: by the handler that its method and path lead to.
    ///
    /// The future runs plugin code wherever it is polled; dropping it drops the handler where it waits. Bodies may lie in the plugin's
    /// memory and keep its code until they are dropped.
    pub async fn ask(&self, request: Request<Bytes>) -> Response<Bytes> {
        answer::answer(self.slot(), request).await
    }

    /// What new requests reach.
    #[must_use]
    pub(crate) fn slot(&self) -> &Slot {
        &self.shared.slot
    }

    /// The run's id, new with each process.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.shared.run
    }

    /// How many plugins [`ready`](Self::ready) waits for; 1 unless said.
    pub fn expect(&self, plugins: usize) {
        *self.shared.expected.lock() = plugins;
    }

    /// The host is about to end: from now on it isn't [`ready`](Self::ready).
    pub fn end(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
    }

    /// Whether it is about to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.shared.ending.load(Ordering::Relaxed)
    }

    /// Whether every plugin that is expected serves, and the host isn't about to end.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.is_ending() && self.shared.slot.now().generations().len() >= *self.shared.expected.lock()
    }

    /// How many calls are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.services.leases.list().len()
    }

    /// Starts an attempt; `trigger` says what set it off, such as `saved src/lib.rs`.
    pub fn begin(&self, trigger: impl Into<String>) -> Attempt {
        self.shared.journal.begin(trigger)
    }

    /// Ends an attempt that didn't come as far as an artifact.
    pub fn reject(&self, attempt: Attempt, error: &Error) -> Record {
        self.shared.reject(attempt, error)
    }

    /// Ends an attempt that a newer change overtook.
    pub fn supersede(&self, attempt: Attempt) -> Record {
        attempt.supersede(&self.shared.journal, self.events())
    }

    /// Takes artifacts through the journey, all or none of them, and publishes them with one store. Blocks until it is over.
    ///
    /// Attempts wait their turn; one whose artifacts a later one brings again is superseded. Plugin code runs inside, on threads of its own.
    pub fn swap(&self, attempt: Attempt, artifacts: Vec<Artifact>) -> Record {
        let (done, record) = channel();
        let job = Job { attempt, artifacts, done };
        let gone = |attempt: Attempt| {
            let error = Error::rejected(Code::Usage, Stage::Stage, "", "the host is ending");
            self.reject(attempt, &error)
        };
        match self.jobs.send(job) {
            Ok(()) => record.recv().unwrap_or_else(|_| gone(self.begin("an attempt whose journey ended"))),
            Err(unsent) => gone(unsent.0.attempt),
        }
    }

    /// What serves, what is in flight and what was attempted.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let snapshot = shared.slot.now();
        let known: BTreeMap<u64, Arc<Generation>> =
            shared.known.lock().iter().filter_map(|(key, generation)| Some((*key, generation.upgrade()?))).collect();
        let lease = |(id, facts, age): (u64, crate::lease::Facts, u64)| {
            let generation = known.get(&facts.generation)?;
            let handler = generation.handlers().get(facts.handler as usize).map(|handler| handler.name.clone());
            let (plugin, generation) = (generation.plugin().to_owned(), generation.number());
            Some(LeaseStatus { id, plugin, generation, handler: handler.unwrap_or_default(), age_us: age / 1_000 })
        };
        let leases: Vec<LeaseStatus> = shared.services.leases.list().into_iter().filter_map(lease).collect();
        let opened = shared.opened.lock().clone();
        let plugin = |generation: &Arc<Generation>| {
            use Ordering::Relaxed;
            let (name, counts) = (generation.plugin().to_owned(), generation.counts());
            PluginStatus {
                generation: generation.number(),
                digest: generation.digest().to_owned(),
                leases: leases.iter().filter(|lease| lease.plugin == name).count(),
                requests: counts.requests.load(Relaxed),
                errors: counts.errors.load(Relaxed),
                panics: counts.panics.load(Relaxed),
                retained: opened.get(&name).map_or(0, |opened| opened - 1),
                census: shared.roll.counts(&name),
                plugin: name,
            }
        };
        Status {
            run: shared.run.clone(),
            pid: std::process::id(),
            dev: shared.options.dev,
            epoch: snapshot.epoch(),
            plugins: snapshot.generations().iter().map(plugin).collect(),
            leases,
            attempts: shared.journal.records(),
        }
    }
}

impl Shared {
    fn reject(&self, attempt: Attempt, error: &Error) -> Record {
        let serving = self.slot.now().generations().iter().map(|generation| generation.to_string()).collect();
        attempt.reject(error, serving, &self.journal, &self.services.bus)
    }
}

/// The thread that takes attempts through.
struct Journey {
    shared: Arc<Shared>,
    /// The last number given, by plugin.
    numbers: BTreeMap<String, u64>,
    maker: Maker,
}

/// An artifact that was judged.
struct Judged {
    staged: Staged,
    manifest: Manifest,
}

/// A candidate and the file that its code came from.
struct Candidate {
    generation: Arc<Generation>,
    staged: Staged,
}

impl Journey {
    fn run(mut self, orders: &Receiver<Job>) {
        while let Ok(first) = orders.recv() {
            let mut jobs: Vec<Job> = std::iter::once(first).chain(orders.try_iter()).collect();
            while !jobs.is_empty() {
                let Job { attempt, artifacts, done } = jobs.remove(0);
                let again = |later: &Job| later.attempt.is_forced() >= attempt.is_forced() && same(&later.artifacts, &artifacts);
                let record = if jobs.iter().any(again) {
                    attempt.supersede(&self.shared.journal, &self.shared.services.bus)
                } else {
                    self.attempt_or_break(attempt, &artifacts)
                };
                // Whoever asked may be gone; the journal has the record.
                let _ = done.send(record);
                jobs.extend(orders.try_iter());
            }
        }
    }

    /// A fault of the host's own in a journey ends that attempt and no more.
    fn attempt_or_break(&mut self, attempt: Attempt, artifacts: &[Artifact]) -> Record {
        let spare = attempt.spare();
        let record = catch_unwind(AssertUnwindSafe(|| self.attempt(attempt, artifacts))).unwrap_or_else(|_| {
            let error = Error::rejected(Code::Internal, Stage::Load, "", "the journey broke; standard error has the panic");
            self.shared.reject(spare, &error.help("this is a fault in midair: please report it"))
        });
        self.shared.known.lock().retain(|_, generation| generation.strong_count() > 0);
        record
    }

    fn attempt(&mut self, mut attempt: Attempt, artifacts: &[Artifact]) -> Record {
        let mut candidates = Vec::new();
        match self.prepare(&mut attempt, artifacts, &mut candidates) {
            Ok((next, unchanged)) => self.publish(attempt, candidates, next, unchanged),
            Err(error) => {
                for candidate in &candidates {
                    candidate.generation.revoke();
                }
                self.shared.reject(attempt, &error)
            }
        }
    }

    /// Everything that can fail. `candidates` has what was made so far, whatever is returned.
    fn prepare(
        &mut self,
        attempt: &mut Attempt,
        artifacts: &[Artifact],
        candidates: &mut Vec<Candidate>,
    ) -> Result<(Option<Arc<Snapshot>>, Vec<Part>)> {
        let now = self.shared.slot.now();
        let (mut changed, mut unchanged, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
        for artifact in artifacts {
            let judged = self.judge(attempt, artifact)?;
            let name = &judged.manifest.name;
            if !names.insert(name.clone()) {
                let reason = format!("two artifacts hold the plugin {name}");
                return Err(Error::rejected(Code::Usage, Stage::Inspect, artifact.path.display().to_string(), reason));
            }
            match now.generation(name) {
                Some(live) if live.digest() == judged.staged.digest() && !attempt.is_forced() => unchanged.push(part_of(live)),
                _ => changed.push(judged),
            }
        }
        for judged in changed {
            self.candidate(attempt, judged, candidates)?;
        }
        if candidates.is_empty() {
            return Ok((None, unchanged));
        }
        let next = attempt.time(Stage::Try, || {
            let candidates = || candidates.iter().map(|candidate| &candidate.generation);
            for candidate in candidates() {
                candidate::try_tables(candidate, self.shared.options.deadline)?;
            }
            let stays = |live: &&Arc<Generation>| candidates().all(|candidate| candidate.plugin() != live.plugin());
            let generations = now.generations().iter().filter(stays).chain(candidates()).cloned().collect();
            Snapshot::compose(now.epoch() + 1, generations).map_err(|clash| {
                let names: Vec<&str> = candidates().map(|candidate| candidate.plugin()).collect();
                Error::rejected(Code::Routes, Stage::Try, names.join(", "), clash.to_string())
                    .help("each method and path has one handler; a file that holds another plugin than before adds its routes")
            })
        })?;
        Ok((Some(Arc::new(next)), unchanged))
    }

    fn judge(&self, attempt: &mut Attempt, artifact: &Artifact) -> Result<Judged> {
        let id = attempt.id();
        let staged = attempt.time(Stage::Stage, || self.shared.staging.copy(&artifact.path, id, loaded))?;
        let manifest = attempt.time(Stage::Inspect, || inspect(staged.path(), &artifact.path))?;
        if !artifact.plugin.is_empty() && artifact.plugin != manifest.name {
            let reason = format!("it holds the plugin {}, not {}", manifest.name, artifact.plugin);
            return Err(Error::rejected(Code::Abi, Stage::Inspect, artifact.path.display().to_string(), reason));
        }
        Ok(Judged { staged, manifest })
    }

    fn candidate(&mut self, attempt: &mut Attempt, judged: Judged, candidates: &mut Vec<Candidate>) -> Result<()> {
        let Judged { staged, manifest } = judged;
        let number = self.numbers.get(&manifest.name).map_or(1, |last| last + 1);
        let identity = Identity { plugin: manifest.name, number, digest: staged.digest().to_owned() };
        let made = self.maker.make(attempt, staged.path().to_owned(), identity);
        self.shared.opened.lock().clone_from(self.maker.opened());
        let generation = made?;
        candidates.push(Candidate { generation: Arc::clone(&generation), staged });
        self.shared.known.lock().insert(generation.key(), Arc::downgrade(&generation));
        if let Some(code) = generation.code() {
            self.shared.roll.enter(generation.plugin(), Arc::clone(code.census()));
        }
        attempt.time(Stage::Init, || candidate::init(&generation, self.shared.options.deadline))
    }

    /// The one store. Nothing here can fail.
    fn publish(
        &mut self,
        mut attempt: Attempt,
        candidates: Vec<Candidate>,
        next: Option<Arc<Snapshot>>,
        unchanged: Vec<Part>,
    ) -> Record {
        let shared = Arc::clone(&self.shared);
        let (bus, id, trigger) = (&shared.services.bus, attempt.id(), attempt.trigger().to_owned());
        let say_unchanged = || {
            for Part { plugin, digest, generation } in unchanged.clone() {
                bus.say(Event::Unchanged { attempt: id, plugin, generation, digest, trigger: trigger.clone() });
            }
        };
        let Some(next) = next else {
            let record = attempt.finish(Outcome::Unchanged, unchanged.clone(), &shared.journal);
            say_unchanged();
            return record;
        };
        let before = attempt.time(Stage::Publish, || {
            go_live(&shared.services, candidates.iter().map(|candidate| &candidate.generation));
            for Candidate { generation, .. } in &candidates {
                self.numbers.insert(generation.plugin().to_owned(), generation.number());
            }
            shared.slot.publish(next)
        });
        // Read back through the live table: only what really answers is said to be published.
        let live = shared.slot.now();
        let parts: Vec<Part> =
            candidates.iter().filter_map(|candidate| live.generation(candidate.generation.plugin())).map(part_of).collect();
        // The record first: who hears of it finds the record.
        let record = attempt.finish(Outcome::Published, parts, &shared.journal);
        say_unchanged();
        for Part { plugin, digest, generation } in record.parts.clone() {
            let (epoch, phases_us, trigger) = (live.epoch(), record.phases_us.clone(), trigger.clone());
            bus.say(Event::Published { attempt: id, plugin, generation, digest, epoch, phases_us, trigger });
        }
        let in_flight = shared.services.leases.list();
        for old in candidates.iter().filter_map(|candidate| before.generation(candidate.generation.plugin())) {
            let leases = in_flight.iter().filter(|(_, facts, _)| facts.generation == old.key()).count();
            bus.say(Event::Retired { plugin: old.plugin().to_owned(), generation: old.number(), leases });
        }
        for Candidate { generation, staged } in candidates {
            shared.staging.keep(generation.plugin(), staged);
        }
        record
    }
}

fn same(a: &[Artifact], b: &[Artifact]) -> bool {
    a.len() == b.len() && a.iter().all(|artifact| b.contains(artifact))
}

fn part_of(generation: &Arc<Generation>) -> Part {
    let (plugin, digest) = (generation.plugin().to_owned(), generation.digest().to_owned());
    Part { plugin, digest, generation: generation.number() }
}

/// Frees what is left of generations, one after the other, each under a deadline: what a plugin's drop does is the plugin's.
fn reap(remains: &Receiver<Remains>, bus: &Bus, deadline: Duration) {
    while let Ok(Remains { plugin, number, published, code }) = remains.recv() {
        if let Err(overrun) = within("midair-reap", deadline, move || drop(code)) {
            let why = match overrun {
                Overrun::Deadline(_) => "takes too long; its thread was given up",
                Overrun::NoThread => "found no thread to run on; it is leaked",
                Overrun::Broke => "broke",
            };
            bus.say(Event::Warning { message: format!("{plugin}={number}: dropping the plugin {why}") });
        }
        if published {
            bus.say(Event::Drained { plugin, generation: number });
        }
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(drop).map_err(|error| Error::fatal(Code::Io, name, "its thread can't be started").caused_by(error))
}

/// Tells runs of hosts apart: the process and the moment.
fn run_id() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", now.as_millis(), std::process::id())
}
