//! What do the threads of a host have in common?

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::cutover::Cutover;
use super::options::{Artifact, Options};
use super::recovery::record::Death;
use super::recovery::{Kind, Recovery, RecoveryRecord};
use crate::artifact::stage::Staging;
use crate::call::context::HostContext;
use crate::live::generation::Generation;
use crate::live::slot::Slot;
use crate::report::attempt::{Attempt, Journal, Record};
use crate::report::error::Error;
use crate::report::event::Event;
use crate::sys::fatal::Evidence;
use crate::sys::native_resources::Roll;
use crate::sys::process;
use crate::work::jobs::Jobs;

/// What the threads of a host share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) run: String,
    /// How many files the process may have open, by its limit at the start.
    pub(super) open_files: Option<u64>,
    pub(super) context: Arc<HostContext>,
    pub(super) slot: Arc<Slot>,
    pub(super) jobs: Arc<Jobs>,
    /// All that changes what serves.
    pub(super) cutover: Cutover,
    pub(super) recovery: Recovery,
    pub(super) journal: Journal,
    pub(super) staging: Staging,
    pub(super) expected: Mutex<usize>,
    /// Every generation that still exists, by key.
    pub(super) known: Mutex<BTreeMap<u64, Weak<Generation>>>,
    /// Libraries opened so far, by plugin; none is ever closed.
    pub(super) opened: Mutex<BTreeMap<String, usize>>,
    pub(super) roll: Roll,
}

impl Shared {
    /// Ends an attempt with an error, and says what serves all the same.
    pub(super) fn reject(&self, attempt: Attempt, error: &Error) -> Record {
        let serving = self.slot.now().generations().iter().map(|generation| generation.to_string()).collect();
        attempt.reject(error, serving, &self.journal, &self.context.bus)
    }

    /// What of these artifacts' plugins is to be started before anything else.
    pub(super) fn kept_before(&self, artifacts: &[Artifact]) -> (Duration, Vec<(Kind, Vec<Artifact>)>) {
        if !self.options.recovers {
            return (Duration::ZERO, Vec::new());
        }
        let mut pause = Duration::ZERO;
        let mut start = [(Kind::Committed, Vec::new()), (Kind::Fallback, Vec::new())];
        let ours = |source: &PathBuf| artifacts.iter().any(|artifact| artifact.path == *source);
        for (plugin, mut record) in self.recovery.all().into_iter().filter(|(_, record)| ours(&record.source)) {
            let deaths = record.after_death(self.recovery.evidence());
            self.recovery.starts_after(&plugin, &record);
            let has_died = !deaths.is_empty();
            deaths.into_iter().for_each(|death| self.tell_of_death(&plugin, &record, death));
            if let Some((digest, kind)) = record.start() {
                if has_died {
                    pause = pause.max(record.pause());
                }
                let artifact = Artifact { path: self.recovery.copy_of(&plugin, digest), plugin };
                start.iter_mut().filter(|(of, _)| *of == kind).for_each(|(_, all)| all.push(artifact.clone()));
            } else if let Some(held) = record.committed.as_deref().and_then(|digest| record.held(digest)) {
                let message = format!(
                    "{plugin} isn't started: {}; put other bytes in its place, or have it taken again with `midair reload --force`",
                    held.reason
                );
                self.context.bus.say(Event::Warning { message });
            }
        }
        (pause, start.into_iter().filter(|(_, all)| !all.is_empty()).collect())
    }

    fn tell_of_death(&self, plugin: &str, record: &RecoveryRecord, death: Death) {
        let what = if record.committed.as_ref() == Some(&death.digest) { "had just been started" } else { "was on trial" };
        let then = if death.is_held { "it is quarantined" } else { "it is started again" };
        let reason = match self.recovery.evidence() {
            Evidence::Code { signal, .. } => {
                format!("the last run died of {} in code of {plugin}, which {what}; {then}", process::signal_name(*signal))
            }
            Evidence::Signal(signal) => format!(
                "the last run died of {} while {plugin} {what}; no code of a plugin was seen there; {then}",
                process::signal_name(*signal)
            ),
            Evidence::None => {
                format!("the last run ended while {plugin} {what} and left no word, as if it had been killed from outside; {then}")
            }
        };
        self.context.bus.say(Event::Died { plugin: plugin.to_owned(), digest: death.digest, deaths: death.deaths, reason });
    }
}
