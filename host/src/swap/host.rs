//! What can a program do with a host?

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use parking_lot::Mutex;

use super::cutover::Cutover;
use super::options::{Artifact, Options};
use super::pipeline::{Job, Journey};
use super::reaper::reap;
use super::recovery::{Kind, Recovery};
use super::shared::Shared;
use super::supervisor;
use crate::artifact::inspect::{code, loaded};
use crate::artifact::stage::{self, Format, Staging};
use crate::call::context::HostContext;
use crate::call::respond;
use crate::live::generation::Ends;
use crate::live::lease::Leases;
use crate::live::refusal::Which;
use crate::live::rollout::{Origin, Rollout};
use crate::live::slot::Slot;
use crate::live::snapshot::Snapshot;
use crate::plugin::symbolize::Namer;
use crate::report::attempt::{Attempt, Journal, Outcome, Record};
use crate::report::error::{Code, Error, Result, Stage};
use crate::report::event::{Bus, Event, Left};
use crate::resources::host_services::Offers;
use crate::resources::logs::Logs;
use crate::resources::sockets::Sockets;
use crate::resources::state::{State, expiry};
use crate::resources::tasks::Tasks;
use crate::resources::topics::Messages;
use crate::sys::native_resources::Roll;
use crate::sys::process;
use crate::trial::candidate::Maker;
use crate::trial::probe;
use crate::work::jobs::Jobs;
use crate::work::{hostcalls, residents};

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
    pub(super) shared: Arc<Shared>,
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
        let (recovery, damaged) = Recovery::open(&options.data, recovers, &bus)?;
        let (reaper, remains) = channel();
        let (alarms, rings) = channel();
        damaged.into_iter().for_each(|message| bus.say(Event::Warning { message }));
        let tasks = Tasks::new();
        let context = Arc::new(HostContext {
            messages: Messages::new(Arc::clone(&tasks), bus.clone()),
            offers: Offers::default(),
            store: State::open(options.state.as_deref(), options.limits)?,
            bus: bus.clone(),
            logs: Logs::new(bus.clone(), options.deadline)?,
            leases: Leases::new(),
            dev: options.dev,
            probe: false,
            ends: Ends { reaper, alarms },
            tasks: Arc::clone(&tasks),
            sockets: Sockets::new(),
            urgency: Default::default(),
            front: OnceLock::new(),
            frames: Namer::start(bus.clone())?,
            functions: hostcalls::functions(),
        });
        let nothing = Snapshot::compose(0, Vec::new()).map_err(|clash| Error::fatal(Code::Routes, "", clash.to_string()))?;
        let slot = Arc::new(Slot::new(Arc::new(nothing)));
        let front: Weak<Slot> = Arc::downgrade(&slot);
        // Set once, here.
        let _ = context.front.set(front);
        let carrier: Weak<Slot> = Arc::downgrade(&slot);
        context.messages.carried_by(carrier);
        let beats = Jobs::start(Arc::clone(&slot), tasks)
            .map_err(|error| Error::fatal(Code::Io, "midair-jobs", "its thread can't be started").caused_by(error))?;
        let stop = Arc::new(Stop(Arc::clone(&beats)));
        let told = bus.clone();
        context.tasks.tell_to(move |message| told.say(Event::Warning { message }));
        let told = bus.clone();
        context.sockets.tell_to(move |message| told.say(Event::Warning { message }));
        let shared = Arc::new(Shared {
            run: run_id(),
            open_files: process::most_open_files(),
            jobs: Arc::clone(&beats),
            cutover: Cutover::new(
                Arc::clone(&slot),
                Rollout::new(options.keep),
                residents::all(&context, &beats, options.retire),
                Arc::clone(&context.urgency),
            ),
            slot,
            context,
            recovery,
            journal: Journal::default(),
            staging,
            expected: Mutex::new(1),
            known: Mutex::default(),
            opened: Mutex::default(),
            roll: Roll::default(),
            options,
        });
        let (jobs, orders) = channel();
        let deadline = shared.options.deadline;
        start("midair-reaper", move || reap(&remains, &bus, deadline))?;
        let maker = Maker::new(Arc::clone(&shared.context), deadline);
        let journey = Journey::new(Arc::clone(&shared), maker);
        start("midair-journey", move || journey.run(&orders))?;
        let swept = Arc::downgrade(&shared.context);
        start("midair-sweeper", move || expiry::run(&swept, |context| &context.store))?;
        let watched = Arc::clone(&shared);
        start("midair-probation", move || supervisor::watch(&watched, &rings))?;
        Ok(Self { shared, jobs, _stop: stop })
    }

    /// What happens, as it happens.
    #[must_use]
    pub fn events(&self) -> &Bus {
        &self.shared.context.bus
    }

    /// What plugins log, and how much of it. It reaches the program's own `tracing` subscriber.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.shared.context.logs
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
        &self.shared.context.sockets
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
        self.shared.cutover.shut_down();
        self.shared.recovery.ends(self.shared.slot.now().generations());
    }

    /// Waits until what goes on beside requests is over: what plugins spawned and declared, beats that run, messages that wait or are being
    /// handled. What was left at the deadline, requests apart. For the end, after [`end`](Self::end): else there is always more. Blocks;
    /// runs no plugin code on this thread.
    #[must_use]
    pub fn settle(&self, deadline: Duration) -> Left {
        let since = Instant::now();
        let look = || Left {
            tasks: self.shared.context.tasks.awaited(),
            beats: self.shared.jobs.running(),
            messages: self.shared.context.messages.undelivered(),
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

    /// Closes the state's file, if there is one, after all that was asked for before, and writes down that the host ended in good order: the last
    /// thing before the process ends, when requests had their time. What plugins ask of their state after it is refused. What couldn't be done
    /// in time is told; nothing that was answered is lost by that. Blocks until then; runs no plugin code on this thread.
    pub fn close(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        self.shared.recovery.ended();
        if !self.shared.context.store.close(deadline) {
            self.events()
                .say(Event::Warning { message: "the state's file couldn't be closed: the next start mends it".to_owned() });
        }
        if let Err(error) = self.shared.recovery.flush(None, Some(until)) {
            self.events().say(Event::Warning { message: format!("{error}: the next start may take this end for a crash") });
        }
    }

    /// Whether it is about to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.shared.cutover.is_ending()
    }

    /// Whether every plugin that is expected serves, and the host isn't about to end.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.is_ending() && self.shared.slot.now().generations().len() >= *self.shared.expected.lock()
    }

    /// What serves, as `plugin=generation`. Takes no lock.
    #[must_use]
    pub fn serving(&self) -> Vec<String> {
        self.shared.slot.now().generations().iter().map(|generation| generation.to_string()).collect()
    }

    /// How many calls are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.context.leases.list().len()
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
        self.take(attempt, artifacts, Origin::Path)
    }

    /// Starts with what an earlier run committed of these artifacts' plugins, whatever lies at their paths now: all together, or, if that
    /// is rejected, each alone. Blocks until it is over; what came of each attempt.
    ///
    /// Where nothing was committed, what served before the last trial is started, on trial. If that run died, what was on trial then is
    /// quarantined; after three deaths in a row, two of them in its own code, nothing is started, and without a sign of whose code it was it
    /// waits longer each time, up to half a minute. No attempt is made if there is nothing to start, or [`Options::recovers`]
    /// is off. Plugin code runs inside, on threads of its own.
    pub fn recover(&self, artifacts: &[Artifact]) -> Vec<Record> {
        let start = |earlier: Vec<Artifact>, kind| match kind {
            Kind::Committed => self.take(self.begin("start: what was committed last"), earlier, Origin::Recovered),
            Kind::Fallback => self.take(self.begin("start: what served before the last trial"), earlier, Origin::Fallback),
        };
        let mut records = Vec::new();
        let (pause, kept) = self.shared.kept_before(artifacts);
        self.back_off(pause);
        for (kind, earlier) in kept {
            let together = start(earlier.clone(), kind);
            let alone = if together.outcome == Outcome::Rejected && earlier.len() > 1 { earlier } else { Vec::new() };
            records.extend(std::iter::once(together).chain(alone.into_iter().map(|one| start(vec![one], kind))));
        }
        records
    }

    /// Waits, as starts that die at once come again at once; the end of the host ends it.
    fn back_off(&self, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let message =
            format!("hosts died again and again after their start: this one waits {} s before it starts code", pause.as_secs());
        self.events().say(Event::Warning { message });
        let since = Instant::now();
        while since.elapsed() < pause && !self.is_ending() {
            std::thread::sleep(LOOK);
        }
    }

    fn take(&self, attempt: Attempt, artifacts: Vec<Artifact>, origin: Origin) -> Record {
        let (done, record) = channel();
        let job = Job { attempt, artifacts, origin, done };
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
    /// themselves, in no later run either; a forced attempt takes them again, or a rollback to their number. What comes back is committed.
    ///
    /// Waits for no journey: a candidate that is being prepared meanwhile is published on top of what this leaves. No plugin code runs.
    pub fn roll_back(&self, which: &Which) -> Record {
        supervisor::by_hand(&self.shared, which, Instant::now())
    }
}

/// The pause between two looks at what is left at the end.
const LOOK: Duration = Duration::from_millis(5);

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(drop).map_err(|error| Error::fatal(Code::Io, name, "its thread can't be started").caused_by(error))
}

/// Tells runs of hosts apart: the process and the moment.
fn run_id() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", now.as_millis(), std::process::id())
}
