//! Which paths are worth a look, and when?
//!
//! Events come faster than files can be read and say too little: a write isn't the end of a save, a removal may be the first half of
//! one. This gathers them into a set that can't grow without bound.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a file that has vanished may stay away before it is looked for. Long against the gap between the system calls of one save
/// (tens of microseconds), short against a build.
const GAP: Duration = Duration::from_millis(50);

/// From here on it is cheaper to look at everything.
const MOST: usize = 4096;

/// What an event says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Its content stands: closed after a write, renamed in.
    Done,
    /// Its stamps or its mode changed: its content stands, unless it is being written.
    Touched,
    /// A folder was made, and may be filled at this moment.
    Made,
    /// It is being written.
    Writing,
    /// It is gone.
    Gone,
}

/// What is known of a path that is worth a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Its content stands.
    Stands,
    /// It was being written and has been quiet since.
    Quiet,
    /// Nothing.
    Unsure,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Events were lost, or too many, or don't arrive: look at everything.
    pub(super) all: bool,
    pub(super) paths: BTreeMap<PathBuf, Sight>,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// How long a file that is being written has to be quiet before it is looked at.
    quiet: Duration,
    all: bool,
    /// Further events are worth nothing before everything was looked at.
    lost: bool,
    ready: BTreeMap<PathBuf, Sight>,
    writing: BTreeMap<PathBuf, Instant>,
    gone: BTreeMap<PathBuf, Instant>,
}

impl Pending {
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, ..Self::default() }
    }

    /// Notes an event and tells whether whoever waits must be woken: to look, or to learn when it has to.
    pub(super) fn note(&mut self, path: PathBuf, hint: Hint, now: Instant) -> bool {
        if self.lost {
            return false;
        }
        let idle = self.ready.is_empty() && !self.all;
        let known = self.due();
        match hint {
            Hint::Touched if self.writing.contains_key(&path) => {}
            Hint::Done | Hint::Touched | Hint::Made => {
                self.writing.remove(&path);
                self.gone.remove(&path);
                self.ready.insert(path, if hint == Hint::Made { Sight::Unsure } else { Sight::Stands });
            }
            Hint::Writing => {
                self.gone.remove(&path);
                self.ready.remove(&path);
                self.writing.insert(path, now + self.quiet);
            }
            Hint::Gone => {
                self.writing.remove(&path);
                self.ready.remove(&path);
                self.gone.entry(path).or_insert(now + GAP);
            }
        }
        if self.ready.len() + self.writing.len() + self.gone.len() > MOST {
            return self.note_lost();
        }
        let earlier = self.due().is_some_and(|due| known.is_none_or(|known| due < known));
        idle && (earlier || !self.ready.is_empty())
    }

    /// Notes that everything has to be looked at. What events said stays.
    pub(super) fn note_all(&mut self) -> bool {
        !std::mem::replace(&mut self.all, true)
    }

    /// Notes that events were lost, which makes those that came before worthless too.
    pub(super) fn note_lost(&mut self) -> bool {
        let news = !self.all;
        *self = Pending { quiet: self.quiet, all: true, lost: true, ..Pending::default() };
        news
    }

    /// Takes what is worth a look at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Taken {
        let mut paths = std::mem::take(&mut self.ready);
        let quiet: Vec<_> = self.writing.iter().filter(|(_, due)| **due <= now).map(|(path, _)| path.clone()).collect();
        for path in quiet {
            self.writing.remove(&path);
            paths.insert(path, Sight::Quiet);
        }
        // Once there is a reason to look, what vanished before belongs to the same edit.
        if self.all || !paths.is_empty() || self.gone.values().any(|due| *due <= now) {
            paths.extend(std::mem::take(&mut self.gone).into_keys().map(|path| (path, Sight::Unsure)));
        }
        self.lost = false;
        Taken { all: std::mem::take(&mut self.all), paths }
    }

    /// When the next look is worth it; a time gone by means now.
    pub(super) fn due(&self) -> Option<Instant> {
        self.writing.values().chain(self.gone.values()).min().copied()
    }

    /// Whether it was being written when last heard of.
    pub(super) fn is_written(&self, path: &Path) -> bool {
        self.writing.contains_key(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `5 W a` means that after 5 ms file `a` is being written; `D` done, `T` touched, `M` made, `G` gone, `all` looks
    /// at everything, `?` looks and shows what is taken.
    fn check(story: &str, taken: &[&str]) {
        check_with(50, story, taken);
    }

    fn check_with(quiet: u64, story: &str, taken: &[&str]) {
        let start = Instant::now();
        let mut pending = Pending::new(Duration::from_millis(quiet));
        let mut looks = Vec::new();
        for line in story.split(',') {
            let words: Vec<&str> = line.split_whitespace().collect();
            let now = start + Duration::from_millis(words[0].parse().expect("milliseconds"));
            let hint = match words[1] {
                "W" => Hint::Writing,
                "D" => Hint::Done,
                "T" => Hint::Touched,
                "M" => Hint::Made,
                "G" => Hint::Gone,
                "all" => {
                    pending.note_all();
                    continue;
                }
                _ => {
                    let taken = pending.take(now);
                    looks.push(taken.paths.keys().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" "));
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
    fn an_artifact_that_stays_open_is_left_alone_for_longer() {
        check_with(2000, "0 W a, 120 ?, 130 W a, 2000 ?, 2129 ?, 2130 ?", &["", "", "", "a"]);
        check_with(2000, "0 W a, 120 W a, 121 D a, 121 ?", &["a"]);
    }

    #[test]
    fn whoever_waits_is_woken_when_the_next_look_comes_sooner_than_known() {
        let (mut pending, now) = (Pending::new(Duration::from_secs(2)), Instant::now());
        let hints = [("a", Hint::Writing), ("a", Hint::Writing), ("b", Hint::Gone), ("c", Hint::Gone), ("a", Hint::Done)];
        let woken: Vec<_> = hints.iter().map(|(path, hint)| pending.note(path.into(), *hint, now)).collect();
        assert_eq!(woken, [true, false, true, false, true]);
    }

    #[test]
    fn only_a_close_or_a_rename_ends_a_write() {
        check("0 D a, 0 W a, 0 ?, 1 T a, 1 ?, 2 all, 2 ?, 3 D a, 3 all, 3 ?", &["", "", "", "a"]);
        check("0 T a, 0 ?", &["a"]);
    }

    #[test]
    fn only_what_was_closed_or_renamed_in_stands() {
        let (mut pending, now) = (Pending::new(GAP), Instant::now());
        for (path, hint) in [("d", Hint::Done), ("t", Hint::Touched), ("m", Hint::Made), ("w", Hint::Writing), ("g", Hint::Gone)] {
            pending.note(path.into(), hint, now);
        }
        let taken: Vec<_> = pending.take(now + GAP).paths.into_values().collect();
        assert_eq!(taken, [Sight::Stands, Sight::Unsure, Sight::Unsure, Sight::Stands, Sight::Quiet]);
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
        let (mut pending, now) = (Pending::new(GAP), Instant::now());
        let woken = (0..100_000).filter(|n| pending.note(PathBuf::from(format!("f{n}")), Hint::Done, now)).count();
        assert_eq!((woken, pending.ready.len()), (2, 0));
        assert_eq!(pending.take(now), Taken { all: true, paths: BTreeMap::new() });
        assert_eq!(pending.take(now), Taken::default());
    }
}
