//! Does a build cause the next one?
//!
//! A build script that writes a source changes what is watched: the build that follows writes it again, for ever. A file that changed
//! while a build ran, and not since, may have been written by it or by a person. After two such builds in a row the next ones wait until
//! it was quiet for as long as a build takes: a person who goes on saving is heard there. After five nothing more is built until
//! somebody saves something between two builds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Builds in a row that nothing but a build caused.
pub(crate) const MOST: u32 = 5;

/// From this many on, it has to be quiet before the next one.
const TRUSTED: u32 = 2;

const LEAST_QUIET: Duration = Duration::from_secs(1);
const MOST_QUIET: Duration = Duration::from_secs(30);

/// When a file last changed in any way, which nobody can set back; `None` if it is gone.
pub(crate) type ChangedAt = Option<SystemTime>;

/// What the builds so far say about who causes them.
#[derive(Debug, Default)]
pub(crate) struct Endless {
    last: Option<Ended>,
    /// Builds that ended by themselves, one after the other, each caused by the one before.
    own: u32,
    is_own: bool,
    /// What the build that runs was begun for, if a build wrote it that ended by itself.
    suspects: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Ended {
    at: Instant,
    took: Duration,
    by_itself: bool,
    /// What changed while it ran.
    changed: BTreeMap<PathBuf, ChangedAt>,
}

/// What to do about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Build,
    /// Not before this, unless something else changes.
    Wait(Instant),
    /// It would go on for ever.
    Stop,
}

impl Endless {
    /// Judges what changed. With `Build` it counts as begun.
    pub(crate) fn judge(&mut self, changed: &[PathBuf], changed_at: impl Fn(&Path) -> ChangedAt, now: Instant) -> Verdict {
        if changed.is_empty() {
            return Verdict::Build;
        }
        let wrote = |last: &&Ended| changed.iter().all(|path| last.changed.get(path) == Some(&changed_at(path)));
        let Some(last) = self.last.as_ref().filter(wrote) else {
            self.begin_anew();
            return Verdict::Build;
        };
        if self.own >= MOST {
            *self = Self::default();
            return Verdict::Stop;
        }
        let quiet = last.at + last.took.clamp(LEAST_QUIET, MOST_QUIET);
        if self.own >= TRUSTED && now < quiet {
            return Verdict::Wait(quiet);
        }
        self.suspects = if last.by_itself { changed.iter().cloned().collect() } else { BTreeSet::new() };
        self.is_own = true;
        Verdict::Build
    }

    /// A build begins that a person asked for.
    pub(crate) fn begin_anew(&mut self) {
        (self.own, self.is_own) = (0, false);
        self.suspects.clear();
    }

    /// Whether a change of this file, while the build runs that it caused, says nothing of a person.
    pub(crate) fn suspects(&self, path: &Path) -> bool {
        self.suspects.contains(path)
    }

    /// A build ended, during which these files changed.
    pub(crate) fn note(&mut self, took: Duration, by_itself: bool, changed: BTreeMap<PathBuf, ChangedAt>, now: Instant) {
        self.own += u32::from(by_itself && self.is_own);
        self.is_own = false;
        self.last = Some(Ended { at: now, took, by_itself, changed });
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const TOOK: Duration = Duration::from_secs(4);

    fn second(number: u64) -> ChangedAt {
        Some(UNIX_EPOCH + Duration::from_secs(number))
    }

    /// Builds of which each, by letter, ends by itself or is cancelled (`x`), and after which a file is as the build left it, or was
    /// saved since (`s`).
    fn check(builds: &str, expected: Verdict) {
        let (mut endless, file, start) = (Endless::default(), PathBuf::from("a.rs"), Instant::now());
        let mut verdict = Verdict::Build;
        for (number, build) in (0..).zip(builds.chars()) {
            assert_eq!(verdict, Verdict::Build, "{builds}, before build {number}");
            let at = start + TOOK * 100 * u32::try_from(number).expect("few");
            endless.note(TOOK, build != 'x', [(file.clone(), second(number))].into(), at);
            let changed_at = if build == 's' { number + 1 } else { number };
            verdict = endless.judge(std::slice::from_ref(&file), |_| second(changed_at), at + TOOK);
        }
        assert_eq!(verdict, expected, "{builds}");
    }

    #[test]
    fn after_five_builds_that_builds_caused_it_stops() {
        check("-----", Verdict::Build);
        check("------", Verdict::Stop);
        check("-xx-xx-xx-xx-xx", Verdict::Build);
        check("xx-xx-xx-xx-xx-", Verdict::Stop);
    }

    #[test]
    fn an_edit_between_two_builds_starts_the_count_anew() {
        check("-----s-----", Verdict::Build);
        check("-----s------", Verdict::Stop);
    }

    #[test]
    fn it_waits_for_quiet_after_two_builds_and_a_later_change_ends_the_wait() {
        let (mut endless, file, at) = (Endless::default(), PathBuf::from("a.rs"), Instant::now());
        let changed = std::slice::from_ref(&file);
        for _ in 0..2 {
            endless.note(TOOK, true, [(file.clone(), second(1))].into(), at);
            assert_eq!(endless.judge(changed, |_| second(1), at), Verdict::Build);
        }
        endless.note(TOOK, true, [(file.clone(), second(1))].into(), at);
        assert_eq!(endless.judge(changed, |_| second(1), at), Verdict::Wait(at + TOOK));
        assert_eq!(endless.judge(changed, |_| second(2), at), Verdict::Build);
        assert_eq!(endless.own, 0);
    }

    #[test]
    fn a_change_of_what_caused_a_build_is_no_reason_to_cancel_it_unless_the_one_before_was_cancelled() {
        for (by_itself, suspected) in [(true, true), (false, false)] {
            let (mut endless, file) = (Endless::default(), PathBuf::from("a.rs"));
            endless.note(TOOK, by_itself, [(file.clone(), None)].into(), Instant::now());
            assert_eq!(endless.judge(std::slice::from_ref(&file), |_| None, Instant::now()), Verdict::Build);
            assert_eq!(endless.suspects(&file), suspected);
        }
    }
}
