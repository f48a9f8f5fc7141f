//! What is known of one plugin, and what does the death of a run say of it?

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::mutation::{self, Bug};
use crate::report::hold::{Held, HoldReason};
use crate::sys::fatal::Evidence;

/// After so many deaths in a row even what was committed isn't started again.
const DEATHS: u32 = 3;
/// ... if so many of them are its own.
const OWN_DEATHS: u32 = 2;
/// So many holds of a plugin are kept, the newest: each is a rollback or a death.
const HOLDS: usize = 256;

/// What is known of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecoveryRecord {
    /// The artifact's path as the operator gave it: another run may serve others.
    #[serde(default, with = "any_path")]
    pub source: PathBuf,
    /// blake3 of the bytes that were committed last, in hex.
    #[serde(default)]
    pub committed: Option<String>,
    /// blake3 of the bytes that served before what is on trial and were never committed: the next best to what is committed.
    #[serde(default)]
    pub fallback: Option<String>,
    /// blake3 of the bytes that serve and aren't committed, or not in this run.
    #[serde(default)]
    pub pending: Option<String>,
    /// blake3 of the bytes that are started and don't serve yet.
    #[serde(default)]
    pub candidate: Option<String>,
    /// How often in a row the host died while something was pending or a candidate.
    #[serde(default)]
    pub deaths: u32,
    /// How often of these with what was committed, or with the very first bytes.
    #[serde(default)]
    pub own_deaths: u32,
    /// What is held.
    #[serde(default)]
    pub held: Vec<Held>,
}

/// A path as text where it is text, else as its bytes: file names needn't be UTF-8.
mod any_path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(PathBuf),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => text.serialize(to),
            None => path.as_os_str().as_bytes().serialize(to),
        }
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<PathBuf, D::Error> {
        Ok(match Written::deserialize(from)? {
            Written::Text(path) => path,
            Written::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

/// What an earlier run's death means for a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    /// The bytes that served then.
    pub digest: String,
    /// How many times in a row.
    pub deaths: u32,
    /// Whether these bytes are held from now on.
    pub is_held: bool,
}

impl RecoveryRecord {
    /// Reads a file's content.
    ///
    /// # Errors
    ///
    /// What makes no sense.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let json: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mark: Self = serde_json::from_value(json.into()).map_err(|error| error.to_string())?;
        let is_digest =
            |digest: &String| digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut digests = mark
            .committed
            .iter()
            .chain(&mark.fallback)
            .chain(&mark.pending)
            .chain(&mark.candidate)
            .chain(mark.held.iter().map(|held| &held.digest));
        match digests.find(|digest| !is_digest(digest)) {
            Some(digest) => Err(format!("{digest:?} is no digest")),
            None => Ok(mark),
        }
    }

    /// What [`parse`](Self::parse) reads.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub(crate) fn text(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// Why these bytes are held, if they are.
    #[must_use]
    pub(crate) fn held(&self, digest: &str) -> Option<&Held> {
        self.held.iter().find(|held| held.digest == digest)
    }

    /// Holds these bytes. What was held longest is let go if there are too many.
    pub(crate) fn hold(&mut self, held: Held) {
        self.held.retain(|earlier| earlier.digest != held.digest);
        self.held.push(held);
        self.held.drain(..self.held.len().saturating_sub(HOLDS));
    }

    /// What is started next time: what was committed, or else what served before.
    #[must_use]
    pub(crate) fn start(&self) -> Option<(&str, Kind)> {
        let committed = self.committed.as_deref().map(|digest| (digest, Kind::Committed));
        let fallback = self.fallback.as_deref().map(|digest| (digest, Kind::Fallback));
        committed.into_iter().chain(fallback).find(|(digest, _)| self.held(digest).is_none())
    }

    /// How long to wait before it is started again: a second from the third death in a row on, and twice as long each time, up to half a minute.
    #[must_use]
    pub(crate) fn pause(&self) -> Duration {
        let more = self.deaths.saturating_sub(DEATHS).min(5);
        if self.deaths < DEATHS { Duration::ZERO } else { Duration::from_secs(1 << more).min(Duration::from_secs(30)) }
    }

    /// Nothing is on trial any more, and no death counts.
    pub(super) fn ends_well(&mut self) {
        (self.pending, self.candidate, self.deaths, self.own_deaths) = (None, None, 0, 0);
    }

    /// Takes into account that the last run didn't end as it should, if something was on trial or about to be.
    ///
    /// That is quarantined, if there is something else to start; where the evidence points to code, only that. What was committed is tried again, and
    /// so is the very first artifact: without evidence for ever, since who kills a host kills any; with it until two deaths are its own.
    pub(crate) fn after_death(&mut self, evidence: &Evidence) -> Vec<Death> {
        let mut suspects: Vec<String> = self.pending.take().into_iter().chain(self.candidate.take()).collect();
        suspects.dedup();
        let is_seen = matches!(evidence, Evidence::Code { .. });
        if let Evidence::Code { digest, .. } = evidence {
            suspects.retain(|suspect| suspect == digest);
        }
        if suspects.is_empty() {
            return Vec::new();
        }
        self.deaths = self.deaths.saturating_add(1);
        let is_own = |digest: &String| match (&self.committed, &self.fallback) {
            (None, None) => true,
            (committed, fallback) => {
                committed.as_ref() == Some(digest) || (committed.is_none() && fallback.as_ref() == Some(digest))
            }
        };
        // With something else beside it, that is more likely to blame.
        let counts = suspects.iter().all(is_own);
        let suspects: Vec<String> = suspects.into_iter().filter(|digest| counts || !is_own(digest)).collect();
        self.own_deaths = self.own_deaths.saturating_add(u32::from(counts && is_seen));
        let is_hopeless = is_seen && self.deaths >= DEATHS && self.own_deaths >= OWN_DEATHS;
        let mut deaths = Vec::new();
        for digest in suspects {
            let is_held = (!counts || is_hopeless) && !mutation::is(Bug::QuarantineForgotten);
            if is_held {
                let reason = if counts {
                    format!("the host died {} times in a row, {} of them with these", self.deaths, self.own_deaths)
                } else {
                    "the host died while they were on trial".to_owned()
                };
                self.hold(Held { digest: digest.clone(), by: HoldReason::Crash, reason });
            }
            deaths.push(Death { digest, deaths: self.deaths, is_held });
        }
        deaths
    }
}

/// Why bytes can be started before any others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They were committed.
    Committed,
    /// They served, and weren't.
    Fallback,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: char) -> String {
        letter.to_string().repeat(64)
    }

    /// A crash in this code.
    fn in_code(letter: char) -> Evidence {
        Evidence::Code { signal: 6, digest: digest(letter) }
    }

    /// After a crash in what is pending, or in the candidate if nothing is.
    fn held_by(mark: &mut RecoveryRecord) -> Vec<bool> {
        let suspect = mark.pending.clone().or_else(|| mark.candidate.clone()).unwrap_or_default();
        mark.after_death(&Evidence::Code { signal: 6, digest: suspect }).into_iter().map(|death| death.is_held).collect()
    }

    fn pending(mark: &mut RecoveryRecord, letter: char) {
        mark.pending = Some(digest(letter));
    }

    #[test]
    fn fault_21_g11_what_was_on_trial_when_the_host_died_is_quarantined() {
        let mut mark = RecoveryRecord { committed: Some(digest('a')), ..RecoveryRecord::default() };
        pending(&mut mark, 'b');
        assert_eq!(mark.after_death(&in_code('b')), [Death { digest: digest('b'), deaths: 1, is_held: true }]);
        assert_eq!(mark.held(&digest('b')).map(|held| held.by), Some(HoldReason::Crash));
        assert_eq!((mark.after_death(&in_code('b')), mark.held(&digest('a'))), (Vec::new(), None), "one death counts once");
    }

    #[test]
    fn fault_22_three_deaths_in_a_row_hold_what_was_committed_too() {
        let mut mark = RecoveryRecord { committed: Some(digest('a')), ..RecoveryRecord::default() };
        for (letter, is_held) in [('b', true), ('a', false), ('a', true)] {
            pending(&mut mark, letter);
            assert_eq!(held_by(&mut mark), [is_held], "{letter}");
        }
        // Others' deaths don't make up for its own.
        let mut mark = RecoveryRecord { committed: Some(digest('a')), ..RecoveryRecord::default() };
        for (letter, is_held) in [('b', true), ('c', true), ('b', true), ('a', false), ('a', true)] {
            pending(&mut mark, letter);
            assert_eq!(held_by(&mut mark), [is_held], "{letter}");
        }
        let held = mark.held(&digest('a')).map(|held| held.reason.as_str());
        assert_eq!(held, Some("the host died 5 times in a row, 2 of them with these"));
        // The very first artifact has nothing before it, and gets three tries too.
        let mut first = RecoveryRecord::default();
        for is_held in [false, false, true] {
            pending(&mut first, 'a');
            assert_eq!(held_by(&mut first), [is_held]);
        }
    }

    #[test]
    fn what_served_before_is_started_where_nothing_was_committed() {
        let mut mark = RecoveryRecord { fallback: Some(digest('a')), ..RecoveryRecord::default() };
        pending(&mut mark, 'b');
        assert_eq!(held_by(&mut mark), [true], "there is something else to start");
        assert_eq!(mark.start(), Some((digest('a').as_str(), Kind::Fallback)));
        for is_held in [false, true] {
            pending(&mut mark, 'a');
            assert_eq!(held_by(&mut mark), [is_held]);
        }
        assert_eq!(mark.start(), None, "it dies each time");
    }

    fn both(committed: char, pending: char, candidate: char) -> RecoveryRecord {
        let [committed, pending, candidate] = [committed, pending, candidate].map(|letter| Some(digest(letter)));
        RecoveryRecord { committed, pending, candidate, ..RecoveryRecord::default() }
    }

    #[test]
    fn of_several_suspects_only_the_one_is_held_whose_code_it_was() {
        for evidence in ['b', 'c', 'z'] {
            let mut mark = both('a', 'b', 'c');
            let blamed: Vec<String> = mark.after_death(&in_code(evidence)).into_iter().map(|death| death.digest).collect();
            let wanted: Vec<String> = [digest(evidence)].into_iter().filter(|_| evidence != 'z').collect();
            assert_eq!(blamed, wanted, "{evidence}");
            let held: Vec<&String> = mark.held.iter().map(|held| &held.digest).collect();
            assert_eq!(held, wanted.iter().collect::<Vec<_>>());
            assert_eq!((mark.pending.as_ref(), mark.candidate.as_ref(), mark.deaths), (None, None, wanted.len() as u32));
        }
    }

    #[test]
    fn a_death_without_evidence_holds_what_is_new_and_nothing_that_was_committed_however_often_it_comes() {
        for evidence in [Evidence::None, Evidence::Signal(6)] {
            let mut mark = both('a', 'b', 'c');
            let blamed = |mark: &mut RecoveryRecord| -> Vec<bool> {
                mark.after_death(&evidence).iter().map(|death| death.is_held).collect()
            };
            assert_eq!(blamed(&mut mark), [true, true]);
            let mut pauses = Vec::new();
            for _ in 0..9 {
                pending(&mut mark, 'a');
                assert_eq!(blamed(&mut mark), [false]);
                pauses.push(mark.pause().as_secs());
            }
            assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 30, 30, 30], "it is started again, and later each time");
            assert_eq!(mark.start(), Some((digest('a').as_str(), Kind::Committed)));
        }
        // The very first, which has nothing before it.
        let mut first = RecoveryRecord::default();
        for _ in 0..5 {
            pending(&mut first, 'a');
            assert!(first.after_death(&Evidence::None).iter().all(|death| !death.is_held));
        }
    }

    #[test]
    fn with_something_new_beside_it_what_was_committed_is_not_to_blame() {
        let mut mark = RecoveryRecord { committed: Some(digest('a')), ..RecoveryRecord::default() };
        for _ in 0..5 {
            pending(&mut mark, 'a');
            mark.candidate = Some(digest('d'));
            let held: Vec<bool> = mark.after_death(&Evidence::None).into_iter().map(|death| death.is_held).collect();
            assert_eq!(held, [true], "the other one is more likely to blame");
        }
        assert_eq!(mark.start(), Some((digest('a').as_str(), Kind::Committed)));
    }

    #[test]
    fn the_newest_holds_are_kept() {
        let mut mark = RecoveryRecord::default();
        for number in 0..HOLDS + 3 {
            mark.hold(Held { digest: number.to_string(), by: HoldReason::Hand, reason: String::new() });
        }
        assert_eq!((mark.held.len(), mark.held("2"), mark.held("3").is_some()), (HOLDS, None, true));
    }
}
