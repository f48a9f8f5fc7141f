//! What is one plugin's code, from candidate to retirement?
//!
//! A generation owns the loaded code and the way by which that code reaches the host. Before publish it is a candidate: it may read state,
//! while what it writes is queued. Publishing applies the queue; rejecting throws it away and shuts the door.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use midair_abi::store::{Op, Refusal};
use midair_abi::task::Keep;
use midair_abi::{self as abi, HostRef, Outcome};
use parking_lot::Mutex;

use crate::artifact::stage::Staged;
use crate::live::lease::Leases;
use crate::live::probation::{Counts, Verdict};
use crate::mutation::{self, Bug};
use crate::plugin::exports::{HandlerInfo, Plugin};
use crate::plugin::symbolize::Namer;
use crate::report::attempt::Part;
use crate::report::event::{Bus, Event, Kind};
use crate::resources::host_services::Offers;
use crate::resources::logs::Logs;
use crate::resources::sockets::Sockets;
use crate::resources::state::{Applied, State, Write};
use crate::resources::tasks::{About, Bell, Tasks};
use crate::resources::topics::Messages;

/// What the host offers to every generation.
pub(crate) struct Services {
    /// The state of all plugins.
    pub store: State,
    /// Where plugins' log lines and failures are told.
    pub bus: Bus,
    /// Where what plugins log goes.
    pub logs: Arc<Logs>,
    /// All calls in flight.
    pub leases: Arc<Leases>,
    /// Whether error texts may reach clients.
    pub dev: bool,
    /// Whether this is a probe, and not a host.
    pub probe: bool,
    /// What a plugin calls.
    pub functions: HostRef,
    /// Finds names for the frames of panics.
    pub frames: Namer,
    /// Hears what a generation's answers lead to while it is on trial.
    pub alarms: Sender<Alarm>,
    /// Takes what ended.
    pub reaper: Sender<Ended>,
    /// What runs beside requests.
    pub tasks: Arc<Tasks>,
    /// What plugins tell each other.
    pub messages: Arc<Messages>,
    /// What a custom host does for them.
    pub offers: Offers,
    /// All WebSockets.
    pub sockets: Arc<Sockets>,
    /// What serves, for work that no request admitted. Set once there is a host.
    pub front: OnceLock<Weak<dyn Ask>>,
}

/// Whatever serves at the moment.
pub(crate) trait Ask: Send + Sync {
    /// Asks a route of it for a plugin whose code `caller` keeps: an answer, or a future of one.
    fn ask(&self, request: abi::Request, caller: Keep) -> Outcome;
}

/// What an answer on trial led to.
pub(crate) struct Alarm {
    /// Whose answer, by the generation's key.
    pub generation: u64,
    /// What it led to.
    pub verdict: Verdict,
    /// When it was counted.
    pub at: Instant,
}

/// What ended, for the reaper.
pub(crate) enum Ended {
    /// The last call that was admitted while a generation served.
    Term {
        /// Whose.
        plugin: String,
        /// Its number.
        number: u64,
    },
    /// The last use of a config.
    Config {
        /// What the code made of its section, to be dropped by the reaper and nowhere else.
        value: Box<Outcome>,
        /// Whose code made it; it goes after.
        of: Arc<Generation>,
    },
    /// The last use of a generation.
    Use {
        /// Whose it was.
        plugin: String,
        /// Its number.
        number: u64,
        /// Its code, to be dropped by the reaper and nowhere else.
        code: Box<Plugin>,
    },
}

/// A generation's time of service, from the publish that made it live to the end of the last call that was admitted meanwhile. A generation
/// that was put back serves a second one.
pub(crate) struct Term {
    plugin: String,
    number: u64,
    reaper: Sender<Ended>,
    /// Whether it began: a way back that was prepared and never taken ends silently.
    began: AtomicBool,
}

impl Term {
    /// A term that hasn't begun.
    #[must_use]
    pub(crate) fn of(generation: &Generation) -> Self {
        let Identity { plugin, number, .. } = generation.identity.clone();
        Self { plugin, number, reaper: generation.services.reaper.clone(), began: AtomicBool::new(false) }
    }

    pub(crate) fn begin(&self) {
        self.began.store(true, Ordering::Relaxed);
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        if *self.began.get_mut() {
            // Without a reaper the host has ended, and nobody listens.
            let _ = self.reaper.send(Ended::Term { plugin: std::mem::take(&mut self.plugin), number: self.number });
        }
    }
}

/// Who a generation is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The plugin's name.
    pub plugin: String,
    /// Its number, unique for that plugin within a run.
    pub number: u64,
    /// blake3 of the artifact, in hex.
    pub digest: String,
    /// The digest of what runs of it.
    pub code: String,
    /// The private copy that the code was opened from.
    pub file: PathBuf,
}

/// When a generation served, by the epochs of the snapshots: each time from the first one that it was in to the first without it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served(Vec<(u64, Option<u64>)>);

impl Served {
    /// Whether a call that was admitted to this epoch holds the generation though it doesn't serve any more.
    #[must_use]
    pub(crate) fn is_held_by(&self, epoch: u64) -> bool {
        self.0.iter().any(|(from, to)| to.is_some_and(|to| (*from..to).contains(&epoch)))
    }
}

/// One plugin's code with its way to the host.
pub(crate) struct Generation {
    key: u64,
    /// `plugin=number`, as answers and messages have it.
    label: Bytes,
    identity: Identity,
    /// Taken by `Drop` alone.
    code: Option<Plugin>,
    services: Arc<Services>,
    counts: Counts,
    served: Mutex<Served>,
    /// Rung when it serves for the first time, or never will.
    decided: Arc<Bell>,
    /// Rung when it serves no more, or never will; a new one each time that it is put back.
    retiring: Mutex<Arc<Bell>>,
    published: OnceLock<Instant>,
    /// The private copy, once it was published; the file goes with the generation.
    copy: OnceLock<Staged>,
    door: Mutex<Door>,
    /// `Door` again, for the way that needs no lock.
    phase: AtomicU64,
    /// Whether it was committed: then no older code comes back by itself.
    committed: AtomicBool,
    /// What comes back by itself if this fails on trial; empty if nothing does.
    before: OnceLock<Weak<Generation>>,
    /// Whether values of its tables are still to be read by its code.
    unread: AtomicBool,
    /// How many values of which table its code couldn't read when it last read them all, those of unknown schemas apart.
    misfits: Mutex<BTreeMap<String, u64>>,
}

enum Door {
    /// Before publish: writes wait here.
    Candidate(Vec<Vec<Write>>),
    Live,
    Revoked,
}

const CANDIDATE: u64 = 0;
const LIVE: u64 = 1;
const REVOKED: u64 = 2;

impl Generation {
    /// A candidate.
    #[must_use]
    pub(crate) fn candidate(identity: Identity, code: Plugin, services: Arc<Services>) -> Arc<Self> {
        let (plugin, number, module, frames) =
            (identity.plugin.clone(), identity.number, Arc::clone(code.module()), services.frames.clone());
        code.census().tell_to(move |panic| frames.tell(&module, (plugin.clone(), number), (Kind::Outside, String::new()), panic));
        Self::of(identity, Some(code), services)
    }

    /// One without code, for tests of what becomes of generations.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn without_code(identity: Identity, services: Arc<Services>) -> Arc<Self> {
        Self::of(identity, None, services)
    }

    fn of(identity: Identity, code: Option<Plugin>, services: Arc<Services>) -> Arc<Self> {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let unread = AtomicBool::new(code.as_ref().is_some_and(|code| !code.tables().is_empty()));
        Arc::new(Self {
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            label: Bytes::from(format!("{}={}", identity.plugin, identity.number)),
            identity,
            code,
            services,
            counts: Counts::default(),
            served: Mutex::default(),
            decided: Arc::default(),
            retiring: Mutex::default(),
            published: OnceLock::new(),
            copy: OnceLock::new(),
            door: Mutex::new(Door::Candidate(Vec::new())),
            phase: AtomicU64::new(CANDIDATE),
            committed: AtomicBool::new(false),
            before: OnceLock::new(),
            unread,
            misfits: Mutex::default(),
        })
    }

    /// Unique in the process.
    #[must_use]
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// The plugin's name.
    #[must_use]
    pub(crate) fn plugin(&self) -> &str {
        &self.identity.plugin
    }

    /// Its number.
    #[must_use]
    pub(crate) fn number(&self) -> u64 {
        self.identity.number
    }

    /// blake3 of its artifact, in hex.
    #[must_use]
    pub(crate) fn digest(&self) -> &str {
        &self.identity.digest
    }

    /// Its part of an attempt.
    #[must_use]
    pub(crate) fn part(&self) -> Part {
        let Identity { plugin, digest, number, .. } = &self.identity;
        Part { plugin: plugin.clone(), digest: digest.clone(), generation: *number }
    }

    /// Whether an artifact with these digests runs the same.
    #[must_use]
    pub(crate) fn runs(&self, digest: &str, code: &str) -> bool {
        self.identity.digest == digest || self.identity.code == code
    }

    /// What it answers.
    #[must_use]
    pub(crate) fn handlers(&self) -> &[HandlerInfo] {
        self.code.as_ref().map_or(&[], Plugin::handlers)
    }

    /// How its work beside requests is listed.
    #[must_use]
    pub(crate) fn about(&self, name: String, until_retire: bool) -> About {
        About { generation: self.key, plugin: self.plugin().to_owned(), number: self.number(), name, until_retire, heeds: None }
    }

    /// `plugin=number`.
    #[cfg(feature = "http")]
    #[must_use]
    pub(crate) fn label(&self) -> &Bytes {
        &self.label
    }

    /// How it fared.
    #[must_use]
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts an answer, and tells what it leads to if the generation is on trial. Whether a client asked for it. No lock.
    pub(crate) fn answered(&self, failed: bool, took: Option<Duration>, is_asked: bool) {
        if let Some(verdict) = self.counts.answered(failed, took, is_asked) {
            // Without a listener the host has ended.
            let _ = self.services.alarms.send(Alarm { generation: self.key, verdict, at: Instant::now() });
        }
    }

    /// When it served.
    #[must_use]
    pub(crate) fn served(&self) -> Served {
        self.served.lock().clone()
    }

    /// How often it began to serve.
    #[must_use]
    pub(crate) fn terms(&self) -> usize {
        self.served.lock().0.len()
    }

    /// It serves from this epoch on.
    pub(crate) fn enters(&self, epoch: u64) {
        let terms = {
            let mut served = self.served.lock();
            served.0.push((epoch, None));
            served.0.len()
        };
        self.published.get_or_init(Instant::now);
        if terms > 1 {
            // The first one stays: whoever waits since `init` has that.
            *self.retiring.lock() = Arc::default();
        }
        // Only the host's own work waits for this one, so no plugin code is woken here.
        self.decided.ring();
    }

    /// Rung when it was decided whether it ever serves.
    #[must_use]
    pub(crate) fn decided(&self) -> Arc<Bell> {
        Arc::clone(&self.decided)
    }

    /// Rung when it serves no more or never will, which may run plugin code.
    #[must_use]
    pub(crate) fn retiring(&self) -> Arc<Bell> {
        Arc::clone(&self.retiring.lock())
    }

    /// Whether it serves now.
    #[must_use]
    pub(crate) fn serves(&self) -> bool {
        self.served.lock().0.last().is_some_and(|(_, to)| to.is_none())
    }

    /// It doesn't serve from this epoch on.
    pub(crate) fn leaves(&self, epoch: u64) {
        if let Some((_, to)) = self.served.lock().0.last_mut() {
            to.get_or_insert(epoch);
        }
        #[cfg(midair_seeded)]
        if mutation::is(Bug::UnmapsAtRetire) {
            self.code.as_ref().into_iter().for_each(Plugin::unmap);
        }
    }

    /// Microseconds since it was published first.
    #[must_use]
    pub(crate) fn watched_us(&self) -> u64 {
        self.published.get().map_or(0, |published| u64::try_from(published.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The private copy that its code was opened from.
    #[must_use]
    pub(crate) fn file(&self) -> &Path {
        &self.identity.file
    }

    /// Takes over the private copy, made whole: a debugger reads it, and a rollback may make it what was committed last.
    pub(crate) fn keep(&self, mut copy: Staged) {
        copy.complete();
        // It is kept once, by who published it.
        let _ = self.copy.set(copy);
    }

    /// What the host offers.
    #[must_use]
    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// The code. `None` in tests alone, as only `Drop` takes it.
    #[must_use]
    pub(crate) fn code(&self) -> Option<&Plugin> {
        self.code.as_ref()
    }

    /// Whether it isn't published yet.
    #[must_use]
    pub(crate) fn is_candidate(&self) -> bool {
        self.phase.load(Ordering::Acquire) == CANDIDATE
    }

    /// Whether it was rejected.
    #[must_use]
    pub(crate) fn is_revoked(&self) -> bool {
        self.phase.load(Ordering::Acquire) == REVOKED
    }

    /// Whether it was committed.
    #[must_use]
    pub(crate) fn is_committed(&self) -> bool {
        self.committed.load(Ordering::Relaxed)
    }

    /// It is committed: what it writes from now on needs no older form.
    pub(crate) fn commit(&self) {
        self.committed.store(true, Ordering::Relaxed);
    }

    /// It is about to serve, on trial, and this comes back if it fails.
    pub(crate) fn follows(&self, before: &Arc<Generation>) {
        // It is on trial once.
        let _ = self.before.set(Arc::downgrade(before));
    }

    /// What comes back by itself if this fails, while it is on trial.
    #[must_use]
    pub(crate) fn before(&self) -> Option<Arc<Generation>> {
        self.before.get().filter(|_| !self.is_committed() && !mutation::is(Bug::NothingWaits))?.upgrade()
    }

    /// Whether its code has read all values of its tables.
    #[must_use]
    pub(crate) fn has_read(&self) -> bool {
        !self.unread.load(Ordering::Relaxed)
    }

    /// Its code has read all values, and couldn't read these, by table.
    pub(crate) fn read_all(&self, misfits: BTreeMap<String, u64>) {
        *self.misfits.lock() = misfits;
        self.unread.store(false, Ordering::Relaxed);
    }

    /// How many values of its tables its code can't read, by table: those of schemas that it doesn't know, as of now, and others, as of when
    /// it read them all.
    #[must_use]
    pub(crate) fn unreadable(&self) -> BTreeMap<String, u64> {
        let (misfits, mut unreadable) = (self.misfits.lock().clone(), BTreeMap::new());
        for table in self.code().map_or(&[][..], Plugin::tables) {
            let unknown = self.services.store.tally(&self.table(&table.name)).unreadable(table.oldest, table.newest);
            let all = unknown + misfits.get(&table.name).copied().unwrap_or_default();
            if all > 0 && !mutation::is(Bug::UnreadableUncounted) {
                unreadable.insert(table.name.clone(), all);
            }
        }
        unreadable
    }

    /// The full name of its table.
    #[must_use]
    pub(crate) fn table(&self, name: &str) -> String {
        format!("{}/{name}", self.plugin())
    }

    /// Operations on the state, as this generation may do them now: the store's answer, or [`Refusal::Revoked`] after a rejection.
    pub(crate) fn apply(&self, ops: &[Op<'_>]) -> Applied {
        if self.phase.load(Ordering::Acquire) == LIVE || mutation::is(Bug::WritesUnqueued) {
            return self.services.store.apply(ops);
        }
        let mut door = self.door.lock();
        match &mut *door {
            Door::Live => {
                drop(door);
                self.services.store.apply(ops)
            }
            Door::Revoked => Applied::Now(Err(Refusal::Revoked)),
            Door::Candidate(queue) => {
                if !ops.iter().any(Op::is_write) {
                    return self.services.store.apply(ops);
                }
                let answer = self.services.store.foresee(ops);
                if answer.is_ok() {
                    queue.push(ops.iter().filter(|op| op.is_write()).map(Write::of).collect());
                }
                Applied::Now(answer)
            }
        }
    }

    /// Opens the door and gives what waited behind it. From here on this generation's writes are written at once.
    fn open(&self) -> Vec<Vec<Write>> {
        let mut door = self.door.lock();
        let before = std::mem::replace(&mut *door, Door::Live);
        self.phase.store(LIVE, Ordering::Release);
        match before {
            Door::Candidate(queue) => queue,
            Door::Live | Door::Revoked => Vec::new(),
        }
    }

    /// Shuts the door on a candidate: what waited is thrown away, and whatever it still tries fails.
    pub(crate) fn revoke(&self) {
        *self.door.lock() = Door::Revoked;
        self.phase.store(REVOKED, Ordering::Release);
        self.decided.ring();
        let retiring = self.retiring();
        // There, since wakers may be the plugin's own.
        self.services.tasks.run(async move { retiring.ring() });
    }
}

/// Opens the doors of all candidates of one attempt: what waited is written under one lock of the store, each call's writes all or
/// nothing. What can't be done any more, since the code before wrote meanwhile, is left out and told.
pub(crate) fn go_live<'a>(services: &Services, candidates: impl Iterator<Item = &'a Arc<Generation>>) {
    let queues: Vec<(&Arc<Generation>, Vec<Write>)> =
        candidates.flat_map(|candidate| candidate.open().into_iter().map(move |writes| (candidate, writes))).collect();
    if queues.is_empty() {
        return;
    }
    let groups: Vec<Vec<Op<'_>>> = queues.iter().map(|(_, writes)| writes.iter().map(Write::op).collect()).collect();
    let name = |(candidate, writes): &(&Arc<Generation>, Vec<Write>)| {
        let keys: Vec<String> = writes.iter().map(Write::place).collect();
        format!("{candidate}: what init wrote to {}", keys.join(", "))
    };
    let (names, bus): (Vec<String>, Bus) = (queues.iter().map(name).collect(), services.bus.clone());
    services.store.apply_each(&groups, move |answers| {
        for (name, answer) in names.into_iter().zip(answers) {
            if let Err(refusal) = answer {
                bus.say(Event::Warning { message: format!("{name} was left out: {refusal}") });
            }
        }
    });
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.label))
    }
}

impl Drop for Generation {
    /// The last lease may end on any thread, in the middle of a request: plugin code is dropped elsewhere.
    fn drop(&mut self) {
        let Some(code) = self.code.take() else { return };
        let remains = Ended::Use { plugin: self.identity.plugin.clone(), number: self.identity.number, code: Box::new(code) };
        if let Err(unsent) = self.services.reaper.send(remains) {
            // The reaper ended with the host: nothing is freed any more, since nobody is left to do it safely.
            std::mem::forget(unsent.0);
        }
    }
}
