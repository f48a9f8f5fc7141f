//! What must a host know that was killed and starts again?
//!
//! For each plugin one small file: which bytes were committed last, which served before and never were, which are on trial, how often the host
//! died with them, and which are held back. The bytes that can be started again lie beside it, since the artifact at its path may be newer,
//! broken or gone.
//!
//! # Who waits for the disk
//!
//! What is known is in memory, and all that is asked is answered from there. It changes by decisions, in the order in which the rollout makes
//! them: whoever decides calls this under the rollout's lock, and no call here waits for a file. One thread writes what changed, each
//! plugin's whole: so what is on the disk is what was known at one moment, and later moments follow in order. Who may not go on before
//! something is on the disk calls [`Recovery::flush`]: a candidate before it is started, and nobody else.
//!
//! | part | question |
//! |---|---|
//! | `record` | what is known of one plugin, and what does a death say of it? |
//! | `files` | how does that become files that a death at any moment leaves whole? |

mod files;
pub(crate) mod record;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::live::generation::Generation;
use crate::live::resident::Plan;
use crate::mutation::{self, Bug};
use crate::report::error::{Code, Error, Result, Stage};
use crate::report::event::{Bus, Event};
use crate::report::hold::{Held, HoldReason};
use crate::sys::fatal::{self, Evidence};
use files::{Files, Unwritten};
pub(crate) use record::{Kind, RecoveryRecord};

/// After so long what couldn't be written is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// The records of all plugins.
pub(crate) struct Recovery {
    journal: Arc<Journal>,
    files: Arc<Files>,
    /// What the end of the last run left.
    evidence: Evidence,
    /// Whether what is on trial, committed and gone back to is for a next run; holds are in any case.
    recovers: bool,
    #[cfg(test)]
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What is known, and how far it is written.
#[derive(Default)]
struct Journal {
    known: Mutex<Known>,
    /// Something changed, was written or failed.
    moved: Condvar,
}

#[derive(Default)]
struct Known {
    plugins: BTreeMap<String, Entry>,
    /// Nobody asks any more.
    is_over: bool,
    /// Nor is anything written any more.
    #[cfg(test)]
    is_dead: bool,
}

#[derive(Default)]
struct Entry {
    record: RecoveryRecord,
    /// What its file says, as far as is known.
    on_disk: RecoveryRecord,
    /// Those of the digests in the record that may have to be copied yet, with who has the bytes.
    sources: BTreeMap<String, Arc<Generation>>,
    /// How often it changed, and how many of these changes are on the disk, or couldn't be brought there.
    changes: u64,
    settled: u64,
    failed: Option<Failure>,
    /// What is said with the next settled change.
    told: Vec<Event>,
}

/// Why the changes up to one aren't on the disk.
struct Failure {
    change: u64,
    why: Unwritten,
    again: Instant,
}

impl Recovery {
    /// Reads what there is; what was put aside as damaged, in words.
    ///
    /// # Errors
    ///
    /// `E_IO` if what is there can't be read, or the thread that writes can't be started.
    pub(crate) fn open(data: &Path, recovers: bool, bus: &Bus) -> Result<(Self, Vec<String>)> {
        let (files, records, mut damaged) = Files::open(data)?;
        let mut evidence = Evidence::None;
        if recovers {
            let path = data.join("death");
            let (left, listens) = fatal::listen(&path);
            evidence = left;
            if let Err(error) = listens {
                damaged.push(format!(
                    "{}: it can't be written ({error}), so if this run crashes, the next one won't know in whose code",
                    path.display()
                ));
            }
        }
        let known = |record: RecoveryRecord| Entry { on_disk: record.clone(), record, ..Entry::default() };
        let plugins = records.into_iter().map(|(plugin, record)| (plugin, known(record))).collect();
        let journal = Arc::new(Journal { known: Mutex::new(Known { plugins, ..Known::default() }), moved: Condvar::new() });
        let files = Arc::new(files);
        let (writes, to, told) = (Arc::clone(&journal), Arc::clone(&files), bus.clone());
        let thread = std::thread::Builder::new().name("midair-recovery".to_owned()).spawn(move || writes.write(&to, &told));
        let thread =
            thread.map_err(|error| Error::fatal(Code::Io, "midair-recovery", "its thread can't be started").caused_by(error))?;
        #[cfg(not(test))]
        drop(thread);
        let recovery = Self {
            journal,
            files,
            evidence,
            recovers,
            #[cfg(test)]
            thread: Some(thread),
        };
        Ok((recovery, damaged))
    }

    /// What the end of the last run left.
    #[must_use]
    pub(crate) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// What is known of a plugin.
    #[must_use]
    pub(crate) fn of(&self, plugin: &str) -> RecoveryRecord {
        self.journal.known.lock().plugins.get(plugin).map(|entry| entry.record.clone()).unwrap_or_default()
    }

    /// All that is known.
    #[must_use]
    pub(crate) fn all(&self) -> BTreeMap<String, RecoveryRecord> {
        self.journal.known.lock().plugins.iter().map(|(plugin, entry)| (plugin.clone(), entry.record.clone())).collect()
    }

    /// Where the bytes of a plugin lie that can be started again.
    #[must_use]
    pub(crate) fn copy_of(&self, plugin: &str, digest: &str) -> PathBuf {
        self.files.copy_of(plugin, digest)
    }

    /// What the death of the run before says of a plugin is known from now on.
    pub(crate) fn starts_after(&self, plugin: &str, record: &RecoveryRecord) {
        self.change(plugin, |entry| entry.record = record.clone());
    }

    /// These bytes are about to be started, from this place if it is another one than a copy of earlier, while `live` serves: what can be
    /// started if they die. Who starts them [waits](Self::flush) until that is on the disk.
    pub(crate) fn starts(&self, plugin: &str, digest: &str, source: Option<&Path>, live: Option<&Arc<Generation>>) {
        if !self.recovers || mutation::is(Bug::TrialUnmarked) {
            return;
        }
        self.change(plugin, |entry| {
            entry.record.candidate = Some(digest.to_owned());
            live.into_iter().for_each(|live| entry.falls_back_to(live));
            if let Some(source) = source {
                source.clone_into(&mut entry.record.source);
            }
        });
    }

    /// These bytes don't serve after all.
    pub(crate) fn drops(&self, plugin: &str, digest: &str) {
        self.change(plugin, |entry| drop(entry.record.candidate.take_if(|candidate| candidate == digest)));
    }

    /// The candidates of this plan serve. What was never committed of what leaves is what can be started if they die. What is held stays
    /// held, unless it serves now, or where any other bytes end that.
    pub(crate) fn publishes(&self, plan: &Plan, other_bytes_release: bool) {
        for new in plan.entering() {
            let old = plan.leaves.iter().find(|old| old.plugin() == new.plugin());
            self.change(new.plugin(), |entry| {
                let record = &mut entry.record;
                record.held.retain(|held| !other_bytes_release && held.digest != new.digest());
                if !self.recovers {
                    return;
                }
                record.candidate.take_if(|digest| digest == new.digest());
                record.pending = Some(new.digest().to_owned()).filter(|_| !mutation::is(Bug::TrialUnmarked));
                old.into_iter().for_each(|old| entry.falls_back_to(old));
            });
        }
    }

    /// This generation is committed. `then` is said once that is on the disk, or can't be brought there; it comes back if nothing is written.
    pub(crate) fn commits(&self, generation: &Arc<Generation>, then: Event) -> Option<Event> {
        if !self.recovers || mutation::is(Bug::CommitUnwritten) {
            return Some(then);
        }
        self.change(generation.plugin(), |entry| {
            entry.commit(generation);
            entry.told.push(then);
        });
        None
    }

    /// What leaves by this plan is held from now on, and what enters serves.
    pub(crate) fn goes_back(&self, plan: &Plan, by: HoldReason, reason: &str) {
        for (from, to) in plan.pairs() {
            self.change(from.plugin(), |entry| {
                let record = &mut entry.record;
                // What somebody puts back by its number is no longer held.
                record.held.retain(|held| held.digest != to.digest());
                if from.digest() != to.digest() && !mutation::is(Bug::RolledBackUnheld) {
                    record.hold(Held { digest: from.digest().to_owned(), by, reason: format!("rolled back: {reason}") });
                }
                if !self.recovers {
                    return;
                }
                record.pending.take_if(|pending| pending == from.digest());
                if plan.settles.iter().any(|settled| settled.key() == to.key()) {
                    entry.commit(to);
                } else {
                    (record.pending, record.fallback) = (Some(to.digest().to_owned()), Some(to.digest().to_owned()));
                    entry.sources.insert(to.digest().to_owned(), Arc::clone(to));
                }
            });
        }
    }

    /// The host ends in good order, with these serving: that they are on trial isn't to blame for a death from now on. What is only a
    /// candidate is.
    pub(crate) fn ends(&self, live: &[Arc<Generation>]) {
        for live in live {
            self.change(live.plugin(), |entry| drop(entry.record.pending.take_if(|digest| digest == live.digest())));
        }
    }

    /// The host has ended in good order: nothing of this run is to blame for anything.
    pub(crate) fn ended(&self) {
        let plugins: Vec<String> = self.journal.known.lock().plugins.keys().cloned().collect();
        plugins.iter().for_each(|plugin| self.change(plugin, |entry| entry.record.ends_well()));
    }

    /// Waits until all that is known by now of these plugins, or of all, is on the disk, at most until then.
    ///
    /// # Errors
    ///
    /// `E_IO` if it couldn't be written, or not in time; what is known stays known, and is tried again.
    pub(crate) fn flush(&self, plugins: Option<&[&str]>, until: Option<Instant>) -> Result<()> {
        let mut known = self.journal.known.lock();
        let asked = known.plugins.iter().filter(|(plugin, _)| plugins.is_none_or(|all| all.contains(&plugin.as_str())));
        let asked: Vec<(String, u64)> = asked.map(|(plugin, entry)| (plugin.clone(), entry.changes)).collect();
        for (plugin, change) in asked {
            while known.plugins.get(&plugin).is_some_and(|entry| entry.settled < change) {
                let Some(until) = until else {
                    self.journal.moved.wait(&mut known);
                    continue;
                };
                if self.journal.moved.wait_until(&mut known, until).timed_out() {
                    let subject = self.files.record_of(&plugin).display().to_string();
                    return Err(Error::rejected(
                        Code::Io,
                        Stage::Publish,
                        subject,
                        format!("the disk takes too long to write what is known of {plugin}"),
                    ));
                }
            }
            if let Some(failed) =
                known.plugins.get(&plugin).and_then(|entry| entry.failed.as_ref()).filter(|failed| failed.change >= change)
            {
                return Err(failed.why.error());
            }
        }
        Ok(())
    }

    /// As a kill between two writes would have it.
    #[cfg(test)]
    fn dies(mut self) {
        self.journal.known.lock().is_dead = true;
        self.journal.moved.notify_all();
        self.thread.take().and_then(|thread| thread.join().ok()).expect("its thread ends");
    }

    fn change(&self, plugin: &str, change: impl FnOnce(&mut Entry)) {
        let mut known = self.journal.known.lock();
        let entry = known.plugins.entry(plugin.to_owned()).or_default();
        let before = entry.record.clone();
        change(entry);
        let Entry { record, sources, .. } = &mut *entry;
        sources.retain(|digest, _| [&record.committed, &record.fallback].into_iter().flatten().any(|needed| needed == digest));
        if entry.record != before || !entry.told.is_empty() {
            entry.changes += 1;
            self.journal.moved.notify_all();
        }
    }
}

impl Drop for Recovery {
    fn drop(&mut self) {
        self.journal.known.lock().is_over = true;
        self.journal.moved.notify_all();
    }
}

impl Entry {
    /// This served before what is on trial. It is something to begin with as long as nothing newer was committed.
    fn falls_back_to(&mut self, before: &Arc<Generation>) {
        self.record.fallback = Some(before.digest().to_owned()).filter(|_| !before.is_committed());
        self.sources.insert(before.digest().to_owned(), Arc::clone(before));
    }

    fn commit(&mut self, generation: &Arc<Generation>) {
        let digest = generation.digest().to_owned();
        self.record.pending.take_if(|pending| *pending == digest);
        (self.record.deaths, self.record.own_deaths) = (0, 0);
        (self.record.committed, self.record.fallback) = (Some(digest.clone()), None);
        self.sources.insert(digest, Arc::clone(generation));
    }

    /// Whether it is to be written now.
    fn is_due(&self, now: Instant) -> bool {
        self.settled < self.changes || self.failed.as_ref().is_some_and(|failed| failed.again <= now)
    }
}

impl Journal {
    /// The thread that writes, until nobody asks any more.
    fn write(&self, files: &Files, bus: &Bus) {
        let mut known = self.known.lock();
        loop {
            #[cfg(test)]
            if known.is_dead {
                return;
            }
            let now = Instant::now();
            let due = known.plugins.iter().find(|(_, entry)| entry.is_due(now));
            let Some((plugin, entry)) = due else {
                if known.is_over {
                    return;
                }
                let again = known.plugins.values().filter_map(|entry| Some(entry.failed.as_ref()?.again)).min();
                match again {
                    Some(again) => drop(self.moved.wait_until(&mut known, again)),
                    None => self.moved.wait(&mut known),
                }
                continue;
            };
            let (plugin, change) = (plugin.clone(), entry.changes);
            let (record, before, sources) = (entry.record.clone(), entry.on_disk.clone(), entry.sources.clone());
            let said = entry.told.len();
            drop(known);
            let written = files.write(&plugin, &record, &before, &sources);
            // The last use of a generation may be here.
            drop(sources);
            known = self.known.lock();
            let Some(entry) = known.plugins.get_mut(&plugin) else { continue };
            entry.settled = change;
            entry.on_disk = written.on_disk;
            let is_news = written.failed.is_some() && entry.failed.is_none();
            entry.failed = written.failed.map(|why| Failure { change, why, again: Instant::now() + AGAIN });
            if entry.failed.is_none() && entry.changes == change {
                // Their bytes are on the disk.
                entry.sources.clear();
            }
            let failed = entry.failed.as_ref().filter(|_| is_news).map(|failed| Event::Warning { message: failed.why.to_string() });
            let told: Vec<Event> = failed.into_iter().chain(entry.told.drain(..said)).collect();
            self.moved.notify_all();
            if !told.is_empty() {
                // Who listens may ask for what is known.
                drop(known);
                told.into_iter().for_each(|event| bus.say(event));
                known = self.known.lock();
            }
        }
    }
}

#[cfg(test)]
mod tests;
