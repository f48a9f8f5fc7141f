//! How does an artifact become what serves, and how does what served before come back?
//!
//! The one room that sees both sides: files and libraries, snapshots and events. `journey` takes attempts through, on a thread of its
//! own, one at a time; all that can fail happens before the publish and leaves everything as it was. `watch` commits what did well and
//! goes back from what didn't, on another thread, so that no journey is ever waited for. Neither thread runs plugin code.
//!
//! Both change the standing under one lock, and store into the slot while they hold it: so there is an order of publishes and rollbacks,
//! and each builds on what was live at that moment. No file is written and no plugin is called under that lock.

pub mod budget;
mod exchange;
mod pipeline;
pub mod recovery;
mod status;
mod supervisor;
#[cfg(feature = "http")]
mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
pub use midair_abi::store::Limits;
use parking_lot::Mutex;

use self::pipeline::{Job, Journey};
pub use self::status::{
    BlockerStatus, GenerationStatus, Generations, LeaseStatus, Libraries, PluginStatus, SocketStatus, Status, TaskStatus,
};
#[cfg(feature = "http")]
pub use self::tables::{Page, TableStatus};
use crate::artifact::inspect::{code, loaded};
pub use crate::artifact::stage::Trust;
use crate::artifact::stage::{self, Format, Staging};
use crate::call::respond;
use crate::live::generation::{Ended, Generation, Services};
use crate::live::lease::Leases;
use crate::live::probation::Rules;
use crate::live::rollout::Standing;
pub use crate::live::rollout::Which;
use crate::live::slot::Slot;
use crate::live::snapshot::{Setup, Snapshot};
use crate::plugin::symbolize::Namer;
use crate::report::attempt::{Attempt, Journal, Outcome, Record};
use crate::report::error::{Code, Error, Result, Stage};
use crate::report::event::{Bus, Event, Left};
pub use crate::resources::host_services::Caller;
use crate::resources::host_services::Offers;
use crate::resources::logs::Logs;
use crate::resources::sockets::Sockets;
use crate::resources::state::{State, expiry};
use crate::resources::tasks::Tasks;
use crate::resources::topics::Messages;
pub use crate::resources::topics::{SubscriberStatus, TopicStatus};
use crate::swap::recovery::Marks;
pub use crate::sys::native_resources::Counts;
use crate::sys::native_resources::Roll;
use crate::sys::timeout::{Overrun, within};
use crate::trial::candidate::Maker;
use crate::trial::probe::{self, Probe};
use crate::work::background;
use crate::work::dispatch;
use crate::work::hostcalls;
use crate::work::jobs::Jobs;
pub use crate::work::jobs::{JobStatus, Overlap};

/// How a host is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder for private copies and for what a next run has to know; no other host may use it.
    pub data: PathBuf,
    /// Whether error texts may reach clients.
    pub dev: bool,
    /// The config file of the plugins, `[plugin.NAME]` for each; without one every section is empty. It is read at the start of each
    /// attempt.
    pub config: Option<PathBuf>,
    /// How long opening a library, building its plugin, its `init`, a self-test and the trial of a table may take, each.
    pub deadline: Duration,
    /// Whether new bytes are tried in a child process first. It is on, and needs a line in the program's `main`: see [`probe`].
    pub probe: Probe,
    /// The largest artifact that is taken, in bytes.
    pub artifact_limit: u64,
    /// Whose files are taken as artifacts.
    pub trust: Trust,
    /// Whether an artifact may say where the libraries that it needs are looked for (RPATH, RUNPATH), or name them by path. It is told.
    pub run_paths: bool,
    /// The libraries that an artifact may need beside those of C and of Rust themselves; any if `None`.
    pub allow_libraries: Option<Vec<String>>,
    /// Whether private copies are whole from the start and, once their code serves, on the disk whatever happens to the machine. Else
    /// what the loader doesn't read is copied when the new code serves.
    pub durable: bool,
    /// How many committed generations of a plugin are kept besides the last one, to go back to by hand.
    pub keep: usize,
    /// When new code is committed, and when the code before it comes back.
    pub rules: Rules,
    /// How many libraries may be opened in all; `None` for as many as the system has room for. None is closed before the host ends, and a
    /// swap that would open one more is refused.
    pub most_libraries: Option<usize>,
    /// Whether a run that died is remembered: the next one then starts with what was committed last, and doesn't take again by itself what
    /// was on trial when it died. It needs [`durable`](Self::durable) copies.
    pub recovers: bool,
    /// How long work that belongs to no request goes on after newer code was published, before what may be dropped is, and the rest is named.
    pub retire: Duration,
    /// The file that keeps the plugins' state, made if it isn't there; it ends with the process if `None`. What was written is on the disk when it
    /// is answered. It needs the feature `redb`, and one host has it at a time.
    pub state: Option<PathBuf>,
    /// How large a key and a value of the state may be.
    pub limits: Limits,
}

impl Options {
    /// The defaults for production with this folder: those of `midair run`. An artifact has at most 1 GiB, nobody else may be able to change
    /// it, and it doesn't say where libraries are looked for.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            dev: false,
            config: None,
            deadline: Duration::from_secs(10),
            probe: Probe::On,
            artifact_limit: 1 << 30,
            trust: Trust::Strict { owners: Vec::new() },
            run_paths: false,
            allow_libraries: None,
            durable: true,
            keep: 4,
            most_libraries: None,
            rules: Rules::PRODUCTION,
            recovers: true,
            retire: Duration::from_secs(30),
            state: None,
            limits: Limits::default(),
        }
    }

    /// The defaults for development with this folder, as `midair dev` has them: error texts are shown, whatever can be read is taken, a
    /// breach is told and no more, and each run begins anew.
    #[must_use]
    pub fn development(data: impl Into<PathBuf>) -> Self {
        let (trust, rules) = (Trust::Readable, Rules::DEVELOPMENT);
        Self { dev: true, trust, run_paths: true, durable: false, rules, recovers: false, ..Self::new(data) }
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
/// midair::probe::hook(); // the first line of `main`
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
    _stop: Arc<Stop>,
}

/// Ends the beats of a host's jobs with its last clone.
struct Stop(Arc<Jobs>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct Shared {
    options: Options,
    run: String,
    /// How many files the process may have open, by its limit at the start.
    open_files: Option<u64>,
    services: Arc<Services>,
    slot: Arc<Slot>,
    jobs: Arc<Jobs>,
    /// Changed only together with the slot.
    standing: Mutex<Standing>,
    marks: Marks,
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

impl Host {
    /// A host in which nothing serves yet.
    ///
    /// # Errors
    ///
    /// If its folder can't be prepared, the file of its state can't be used, or its threads can't be started.
    ///
    /// # Exits
    ///
    /// With 70 in a process that was started as a probe and whose `main` doesn't begin with [`probe::hook`].
    pub fn new(options: Options) -> Result<Self> {
        probe::refuse_to_host();
        let bus = Bus::default();
        let Options { artifact_limit: limit, ref trust, durable, recovers, .. } = options;
        let rules = stage::Rules { limit, trust: trust.clone(), durable: durable || recovers };
        let staging = Staging::open(&options.data, rules, Format { loaded, code }, bus.clone())?;
        let (marks, damaged) = Marks::open(&options.data)?;
        let (reaper, remains) = channel();
        let (alarms, rings) = channel();
        damaged.into_iter().for_each(|message| bus.say(Event::Warning { message }));
        let tasks = Tasks::new();
        let services = Arc::new(Services {
            messages: Messages::new(Arc::clone(&tasks), bus.clone()),
            offers: Offers::default(),
            store: State::open(options.state.as_deref(), options.limits)?,
            bus: bus.clone(),
            logs: Logs::new(bus.clone(), options.deadline)?,
            leases: Leases::new(),
            dev: options.dev,
            probe: false,
            reaper,
            alarms,
            tasks: Arc::clone(&tasks),
            sockets: Sockets::new(),
            front: OnceLock::new(),
            frames: Namer::start(bus.clone())?,
            functions: hostcalls::functions(),
        });
        let nothing = Snapshot::compose(0, Vec::new()).map_err(|clash| Error::fatal(Code::Routes, "", clash.to_string()))?;
        let slot = Arc::new(Slot::new(Arc::new(nothing)));
        let front: Weak<Slot> = Arc::downgrade(&slot);
        // Set once, here.
        let _ = services.front.set(front);
        let carrier: Weak<Slot> = Arc::downgrade(&slot);
        services.messages.carried_by(carrier);
        let beats = Jobs::start(Arc::clone(&slot), tasks)
            .map_err(|error| Error::fatal(Code::Io, "midair-jobs", "its thread can't be started").caused_by(error))?;
        let stop = Arc::new(Stop(Arc::clone(&beats)));
        let told = bus.clone();
        services.tasks.tell_to(move |message| told.say(Event::Warning { message }));
        let told = bus.clone();
        services.sockets.tell_to(move |message| told.say(Event::Warning { message }));
        let shared = Arc::new(Shared {
            run: run_id(),
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            services,
            slot,
            jobs: beats,
            standing: Mutex::new(Standing::new(options.keep)),
            marks,
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
        let journey = Journey::new(Arc::clone(&shared), maker);
        start("midair-journey", move || journey.run(&orders))?;
        let swept = Arc::downgrade(&shared.services);
        start("midair-sweeper", move || expiry::run(&swept, |services| &services.store))?;
        let watched = Arc::clone(&shared);
        start("midair-probation", move || supervisor::watch(&watched, &rings))?;
        Ok(Self { shared, jobs, _stop: stop })
    }

    /// What happens, as it happens.
    #[must_use]
    pub fn events(&self) -> &Bus {
        &self.shared.services.bus
    }

    /// What plugins log, and how much of it. It reaches the program's own `tracing` subscriber.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.shared.services.logs
    }

    /// Answers a request within this process, as the HTTP host would: by the handler that its method and path lead to.
    ///
    /// The future runs plugin code wherever it is polled; dropping it drops the handler where it waits. Bodies may lie in the plugin's
    /// memory and keep its code until they are dropped. A streamed body is gathered, so one that never ends is never answered; one that
    /// breaks off is answered 500. A file is read on this thread, whole.
    pub async fn ask(&self, request: Request<Bytes>) -> Response<Bytes> {
        respond::gathered(respond::answer(self.slot(), request).await).await
    }

    /// What new requests reach.
    #[must_use]
    pub(crate) fn slot(&self) -> &Slot {
        &self.shared.slot
    }

    /// The config file of the plugins, if there is to be one.
    #[must_use]
    pub fn config(&self) -> Option<&Path> {
        self.shared.options.config.as_deref()
    }

    /// All WebSockets.
    #[cfg(feature = "http")]
    #[must_use]
    pub(crate) fn sockets(&self) -> &Arc<Sockets> {
        &self.shared.services.sockets
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

    /// The host is about to end: from now on it isn't [`ready`](Self::ready), no job begins a beat, and what is on trial isn't blamed for
    /// the end. What serves is told by `Ctx::retiring`.
    pub fn end(&self) {
        self.shared.jobs.stop();
        // With the load where code begins to serve: what the snapshot doesn't have yet is told there.
        self.shared.ending.store(true, Ordering::SeqCst);
        for generation in self.shared.slot.now().generations() {
            background::tell(generation);
            self.shared.keep_for(generation.plugin(), None);
        }
        if let Err(error) = self.shared.marks.close() {
            self.events().say(Event::Warning { message: format!("{error}: the next start may take this end for a crash") });
        }
    }

    /// Waits until what goes on beside requests is over: what plugins spawned and declared, beats that run, messages that wait or are being
    /// handled. What was left at the deadline, requests apart. For the end, after [`end`](Self::end): else there is always more. Blocks;
    /// runs no plugin code on this thread.
    #[must_use]
    pub fn settle(&self, deadline: Duration) -> Left {
        let since = Instant::now();
        let look = || Left {
            tasks: self.shared.services.tasks.awaited(),
            beats: self.shared.jobs.running(),
            messages: self.shared.services.messages.undelivered(),
            ..Left::default()
        };
        loop {
            let left = look();
            // One of them may have begun another that was looked for before; not twice.
            let is_over = left == Left::default() && look() == Left::default();
            let time = deadline.saturating_sub(since.elapsed());
            if is_over || time.is_zero() {
                return left;
            }
            std::thread::park_timeout(time.min(LOOK));
        }
    }

    /// Closes the state's file, if there is one, after all that was asked for before: the last thing before the process ends, when requests had
    /// their time. What plugins ask of their state after it is refused. Whether it was done in time; if not, nothing that was answered is
    /// lost, and the next start mends the file. Blocks until then; runs no plugin code on this thread.
    #[must_use]
    pub fn close_state(&self, deadline: Duration) -> bool {
        self.shared.services.store.close(deadline)
    }

    /// Whether it is about to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.shared.ending.load(Ordering::SeqCst)
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
    /// New code is published with its section of the config file as it is by now. An attempt that [configures](Attempt::configure) takes
    /// the file for all plugins, in the same store; it needs no artifacts.
    ///
    /// Attempts wait their turn; one whose artifacts a later one brings again is superseded. Plugin code runs inside, on threads of its own.
    pub fn swap(&self, attempt: Attempt, artifacts: Vec<Artifact>) -> Record {
        self.take(attempt, artifacts, false)
    }

    /// Starts with what an earlier run committed of these artifacts' plugins, whatever lies at their paths now: all together, or, if that
    /// is rejected, each alone. Blocks until it is over; what came of each attempt.
    ///
    /// If that run died, what was on trial then is quarantined; after three deaths in a row nothing is started. No attempt is made if there
    /// is nothing to start, or [`Options::recovers`] is off. Plugin code runs inside, on threads of its own.
    pub fn recover(&self, artifacts: &[Artifact]) -> Vec<Record> {
        let committed = self.shared.committed_before(artifacts);
        if committed.is_empty() {
            return Vec::new();
        }
        let start = |committed: Vec<Artifact>| self.take(self.begin("start: what was committed last"), committed, true);
        let together = start(committed.clone());
        let alone = if together.outcome == Outcome::Rejected && committed.len() > 1 { committed } else { Vec::new() };
        std::iter::once(together).chain(alone.into_iter().map(|one| start(vec![one]))).collect()
    }

    fn take(&self, attempt: Attempt, artifacts: Vec<Artifact>, settles: bool) -> Record {
        let (done, record) = channel();
        let job = Job { attempt, artifacts, settles, done };
        let gone = |attempt: Attempt| {
            let error = Error::rejected(Code::Usage, Stage::Stage, "", "the host is ending");
            self.reject(attempt, &error)
        };
        match self.jobs.send(job) {
            Ok(()) => record.recv().unwrap_or_else(|_| gone(self.begin("an attempt whose journey ended"))),
            Err(unsent) => gone(unsent.0.attempt),
        }
    }

    /// Puts a generation back that served before, with one store, and holds the bytes that it replaces: they don't come back by
    /// themselves, in no later run either, until others were published.
    ///
    /// Waits for no journey: a candidate that is being prepared meanwhile is published on top of what this leaves. No plugin code runs.
    pub fn roll_back(&self, which: &Which) -> Record {
        supervisor::by_hand(&self.shared, which, Instant::now())
    }
}

impl Shared {
    /// A generation is about to serve: what its code emits, or is emitted for it, from the moment of the store on finds a queue. What it takes
    /// no more is still taken by the code before. No plugin code runs.
    fn will_serve(&self, generation: &Generation) {
        self.services.messages.open(generation.plugin(), &dispatch::wanted(generation));
    }

    /// A generation serves from now on: so do its jobs, and what it takes of messages. What only the code before has goes on waiting if that
    /// may come back. No plugin code runs.
    fn serves(&self, generation: &Arc<Generation>) {
        self.jobs.declare(generation);
        self.services.messages.subscribe(generation.plugin(), &dispatch::wanted(generation));
        self.keep_for(generation.plugin(), generation.before().as_deref());
    }

    /// A generation is committed, or came back: no older one does by itself any more, and nothing waits for one. No plugin code runs.
    fn stays(&self, generation: &Generation) {
        generation.commit();
        self.keep_for(generation.plugin(), Some(generation));
        self.services.sockets.change();
    }

    /// What waits for code of a plugin that doesn't serve goes, but for what this code has.
    fn keep_for(&self, plugin: &str, code: Option<&Generation>) {
        self.jobs.drop_all(plugin, code);
        self.services.messages.drop_all(plugin, &code.map(dispatch::wanted).unwrap_or_default());
    }

    /// Begins what it declares, once it serves.
    fn begin(&self, setup: &Setup) {
        background::begin(setup);
        if self.ending.load(Ordering::SeqCst) {
            background::tell(&setup.generation);
            self.keep_for(setup.generation.plugin(), None);
        }
    }

    fn reject(&self, attempt: Attempt, error: &Error) -> Record {
        let serving = self.slot.now().generations().iter().map(|generation| generation.to_string()).collect();
        attempt.reject(error, serving, &self.journal, &self.services.bus)
    }

    /// What of these artifacts' plugins is to be started before anything else.
    fn committed_before(&self, artifacts: &[Artifact]) -> Vec<Artifact> {
        if !self.options.recovers {
            return Vec::new();
        }
        let bus = &self.services.bus;
        let ours = |source: &PathBuf| artifacts.iter().any(|artifact| artifact.path == *source);
        let marks = self.marks.all().into_iter().filter(|(_, mark)| ours(&mark.source));
        let start = marks.filter_map(|(plugin, mut mark)| {
            if let Some(death) = mark.after_death() {
                let written = self.marks.change(&plugin, |on_disk| *on_disk = mark.clone());
                written.unwrap_or_else(|error| bus.say(Event::Warning { message: error.to_string() }));
                let what = if mark.committed.as_ref() == Some(&death.digest) { "had just been started" } else { "was on trial" };
                let then = if death.is_held { "it is quarantined" } else { "it is tried once more" };
                let reason = format!("the last run died while {plugin} {what}; {then}");
                bus.say(Event::Died { plugin: plugin.clone(), digest: death.digest, deaths: death.deaths, reason });
            }
            let digest = mark.committed.clone()?;
            if let Some(held) = mark.held(&digest) {
                let message = format!(
                    "{plugin} isn't started: {}; put other bytes in its place, or have it taken again with `midair reload --force`",
                    held.reason
                );
                bus.say(Event::Warning { message });
                return None;
            }
            let path = self.marks.copy_of(&plugin, &digest);
            Some(Artifact { plugin, path })
        });
        start.collect()
    }
}

/// The pause between two looks at what is left at the end.
const LOOK: Duration = Duration::from_millis(5);

/// Tells of ended terms, and frees what is left of generations, one after the other, each under a deadline: what a plugin's drop does is
/// the plugin's.
fn reap(ended: &Receiver<Ended>, bus: &Bus, deadline: Duration) {
    while let Ok(ended) = ended.recv() {
        match ended {
            Ended::Term { plugin, number } => bus.say(Event::Drained { plugin, generation: number }),
            Ended::Use { plugin, number, code } => {
                free(bus, deadline, &format!("{plugin}={number}: dropping the plugin"), move || drop(code));
            }
            // The code goes after what it made.
            Ended::Config { value, of } => {
                let what = format!("{of}: dropping its config");
                free(bus, deadline, &what, move || {
                    drop(value);
                    drop(of);
                });
            }
        }
    }
}

fn free(bus: &Bus, deadline: Duration, what: &str, free: impl FnOnce() + Send + 'static) {
    if let Err(overrun) = within("midair-reap", deadline, free) {
        let why = match overrun {
            Overrun::Deadline(_) => "takes too long; its thread was given up",
            Overrun::NoThread => "found no thread to run on; it is leaked",
            Overrun::Broke => "broke",
        };
        bus.say(Event::Warning { message: format!("{what} {why}") });
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
