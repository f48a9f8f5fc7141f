//! Which paths are worth a look, and when?
//!
//! Events come faster than files can be read and say too little: a write isn't the end of a save, a removal may be the first half of
//! one. This gathers them into a set that can't grow without bound.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a file that is being written, or has vanished, may stay quiet before it is looked at. Long against the gap between the
/// system calls of one save (tens of microseconds), short against a build.
const QUIET: Duration = Duration::from_millis(50);

/// From here on it is cheaper to look at everything.
const MOST: usize = 4096;

/// What an event says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Its content stands: closed after a write, renamed in, stamped anew.
    Done,
    /// It is being written.
    Writing,
    /// It is gone.
    Gone,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Events were lost, or too many: look at everything.
    pub(super) all: bool,
    pub(super) paths: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    all: bool,
    ready: BTreeSet<PathBuf>,
    writing: BTreeMap<PathBuf, Instant>,
    gone: BTreeMap<PathBuf, Instant>,
}

impl Pending {
    /// Notes an event and tells whether whoever waits must be woken: to look, or to learn when it has to.
    pub(super) fn note(&mut self, path: PathBuf, hint: Hint, now: Instant) -> bool {
        if self.all {
            return false;
        }
        let idle = self.ready.is_empty();
        let asleep = idle && self.due().is_none();
        match hint {
            Hint::Done => {
                self.writing.remove(&path);
                self.gone.remove(&path);
                self.ready.insert(path);
            }
            Hint::Writing => {
                self.gone.remove(&path);
                self.writing.insert(path, now + QUIET);
            }
            Hint::Gone => {
                self.writing.remove(&path);
                self.ready.remove(&path);
                self.gone.entry(path).or_insert(now + QUIET);
            }
        }
        if self.ready.len() + self.writing.len() + self.gone.len() > MOST {
            return self.note_all();
        }
        asleep || (idle && !self.ready.is_empty())
    }

    /// Notes that everything has to be looked at.
    pub(super) fn note_all(&mut self) -> bool {
        let news = !self.all;
        *self = Pending { all: true, ..Pending::default() };
        news
    }

    /// Takes what is worth a look at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Taken {
        let mut paths = std::mem::take(&mut self.ready);
        let quiet: Vec<_> = self.writing.iter().filter(|(_, due)| **due <= now).map(|(path, _)| path.clone()).collect();
        for path in quiet {
            self.writing.remove(&path);
            paths.insert(path);
        }
        // Once there is a reason to look, what vanished before belongs to the same edit.
        if self.all || !paths.is_empty() || self.gone.values().any(|due| *due <= now) {
            paths.extend(std::mem::take(&mut self.gone).into_keys());
        }
        Taken { all: std::mem::take(&mut self.all), paths }
    }

    /// When the next look is worth it; a time gone by means now.
    pub(super) fn due(&self) -> Option<Instant> {
        self.writing.values().chain(self.gone.values()).min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `5 W a` means that after 5 ms file `a` is being written; `D` done, `G` gone, `?` looks and shows what is taken.
    fn check(story: &str, taken: &[&str]) {
        let start = Instant::now();
        let mut pending = Pending::default();
        let mut looks = Vec::new();
        for line in story.split(',') {
            let words: Vec<&str> = line.split_whitespace().collect();
            let now = start + Duration::from_millis(words[0].parse().expect("milliseconds"));
            let hint = match words[1] {
                "W" => Hint::Writing,
                "D" => Hint::Done,
                "G" => Hint::Gone,
                _ => {
                    let taken = pending.take(now);
                    looks.push(taken.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" "));
                    continue;
                }
            };
            pending.note(PathBuf::from(words[2]), hint, now);
        }
        assert_eq!(looks, taken, "{story}");
    }

    #[test]
    fn a_save_in_place_is_one_look_after_its_close() {
        check("0 W a, 0 ?, 1 W a, 1 ?, 2 D a, 2 ?, 60 ?", &["", "", "a", ""]);
    }

    #[test]
    fn a_file_that_stays_open_is_looked_at_when_quiet() {
        check("0 W a, 40 W a, 60 ?, 91 ?", &["", "a"]);
    }

    #[test]
    fn delete_and_create_is_one_look() {
        check("0 G a, 1 ?, 2 W a, 3 D a, 3 ?, 60 ?", &["", "a", ""]);
    }

    #[test]
    fn a_removal_alone_is_seen_after_the_quiet_time_and_with_another_edit_at_once() {
        check("0 G a, 49 ?, 50 ?", &["", "a"]);
        check("0 G a, 1 D b, 1 ?", &["a b"]);
    }

    #[test]
    fn a_storm_becomes_one_look_at_everything() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let woken = (0..100_000).filter(|n| pending.note(PathBuf::from(format!("f{n}")), Hint::Done, now)).count();
        assert_eq!((woken, pending.ready.len()), (2, 0));
        assert_eq!(pending.take(now), Taken { all: true, paths: BTreeSet::new() });
        assert_eq!(pending.take(now), Taken::default());
    }
}
