//! What is one plugin's code, from candidate to retirement?
//!
//! A generation owns the loaded code, and what the rooms above attach to it: the way by which that code reaches the host. Before publish it is a
//! candidate; a cutover opens it, or it is revoked.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use midair_abi::Outcome;
use parking_lot::Mutex;

use crate::artifact::stage::Staged;
use crate::live::probation::{Counts, Verdict};
use crate::mutation::{self, Bug};
use crate::plugin::exports::{HandlerInfo, Plugin};
use crate::report::attempt::Part;
use crate::sys::bell::Bell;

/// What an answer on trial led to.
pub(crate) struct Alarm {
    /// Whose answer, by the generation's key.
    pub generation: u64,
    /// What it led to.
    pub verdict: Verdict,
    /// When it was counted.
    pub at: Instant,
}

/// Who hears of what becomes of generations.
#[derive(Clone)]
pub(crate) struct Ends {
    /// Takes what ended.
    pub reaper: Sender<Ended>,
    /// Hears what a generation's answers lead to while it is in probation.
    pub alarms: Sender<Alarm>,
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
        /// The private copy that it came from: its file goes with it, which may wait for the disk.
        copy: Option<Staged>,
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
        Self { plugin, number, reaper: generation.ends.reaper.clone(), began: AtomicBool::new(false) }
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
    ends: Ends,
    /// What the rooms above keep with it; none of these here looks at it.
    attached: Box<dyn Any + Send + Sync>,
    counts: Counts,
    served: Mutex<Served>,
    /// Rung when it serves for the first time, or never will.
    decided: Arc<Bell>,
    /// Rung when it serves no more, or never will; a new one each time that it is put back.
    retiring: Mutex<Arc<Bell>>,
    published: OnceLock<Instant>,
    /// The private copy, once it was published; the file goes with the generation.
    copy: OnceLock<Staged>,
    /// Candidate, live or revoked.
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

const CANDIDATE: u64 = 0;
const LIVE: u64 = 1;
const REVOKED: u64 = 2;

impl Generation {
    /// A candidate, with what the rooms above keep with it.
    #[must_use]
    pub(crate) fn candidate(identity: Identity, code: Plugin, ends: Ends, attached: Box<dyn Any + Send + Sync>) -> Arc<Self> {
        Self::of(identity, Some(code), ends, attached)
    }

    /// One without code, for tests of what becomes of generations.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn without_code(identity: Identity, ends: Ends, attached: Box<dyn Any + Send + Sync>) -> Arc<Self> {
        Self::of(identity, None, ends, attached)
    }

    fn of(identity: Identity, code: Option<Plugin>, ends: Ends, attached: Box<dyn Any + Send + Sync>) -> Arc<Self> {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let unread = AtomicBool::new(code.as_ref().is_some_and(|code| !code.tables().is_empty()));
        Arc::new(Self {
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            label: Bytes::from(format!("{}={}", identity.plugin, identity.number)),
            identity,
            code,
            ends,
            attached,
            counts: Counts::default(),
            served: Mutex::default(),
            decided: Arc::default(),
            retiring: Mutex::default(),
            published: OnceLock::new(),
            copy: OnceLock::new(),
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
            self.alarm(verdict);
        }
    }

    /// Says what was found of it while it is in probation.
    pub(crate) fn alarm(&self, verdict: Verdict) {
        // Without a listener the host has ended.
        let _ = self.ends.alarms.send(Alarm { generation: self.key, verdict, at: Instant::now() });
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

    /// Hears what is found of it while it is in probation.
    #[must_use]
    pub(crate) fn alarms(&self) -> &Sender<Alarm> {
        &self.ends.alarms
    }

    /// Takes what ended.
    #[must_use]
    pub(crate) fn reaper(&self) -> &Sender<Ended> {
        &self.ends.reaper
    }

    /// What the rooms above keep with it, if it is of this type.
    #[must_use]
    pub(crate) fn attached<T: 'static>(&self) -> Option<&T> {
        self.attached.downcast_ref()
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

    /// How many values its code couldn't read when it last read them all, by table; those of unknown schemas apart.
    #[must_use]
    pub(crate) fn misfits(&self) -> BTreeMap<String, u64> {
        self.misfits.lock().clone()
    }

    /// The full name of its table.
    #[must_use]
    pub(crate) fn table(&self, name: &str) -> String {
        format!("{}/{name}", self.plugin())
    }

    /// It is about to serve: what it does takes effect from now on.
    pub(crate) fn open(&self) {
        self.phase.store(LIVE, Ordering::Release);
    }

    /// It never serves: whatever it still tries fails.
    pub(crate) fn revoke(&self) {
        self.phase.store(REVOKED, Ordering::Release);
        self.decided.ring();
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.label))
    }
}

impl Drop for Generation {
    /// The last lease may end on any thread, in the middle of a request or under a lock: plugin code is dropped elsewhere, and the file removed.
    fn drop(&mut self) {
        let Some(code) = self.code.take() else { return };
        let (plugin, number, copy) = (self.identity.plugin.clone(), self.identity.number, self.copy.take());
        let remains = Ended::Use { plugin, number, code: Box::new(code), copy };
        if let Err(unsent) = self.ends.reaper.send(remains) {
            // The reaper ended with the host: nothing is freed any more, since nobody is left to do it safely.
            std::mem::forget(unsent.0);
        }
    }
}
