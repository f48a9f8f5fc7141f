//! Has a listed file come to rest?
//!
//! Whoever overwrites a file in place, or takes its space first, leaves it with its full length from the start: nothing about it says
//! that half of it is old. Where no event told that it was closed or renamed in, its stamps have to be the same in two looks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::places::Stamp;

#[derive(Debug, Default)]
pub(super) struct Rest(BTreeMap<PathBuf, (Stamp, Instant)>);

impl Rest {
    /// Whether a file with this stamp, which isn't the known one, has to be left alone at `now`: it is seen for the first time, or for
    /// less than `quiet`.
    pub(super) fn holds(&mut self, path: &Path, stamp: Stamp, quiet: Duration, now: Instant) -> bool {
        match self.0.get(path) {
            Some((before, due)) if *before == stamp => now < *due,
            _ => {
                self.0.insert(path.to_owned(), (stamp, now + quiet));
                true
            }
        }
    }

    /// Forgets a file that was read, is gone, or no longer counts.
    pub(super) fn release(&mut self, path: &Path) {
        self.0.remove(path);
    }

    pub(super) fn contains(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    /// Those whose time has come.
    pub(super) fn ripe(&self, now: Instant) -> Vec<PathBuf> {
        self.0.iter().filter(|(_, (_, due))| *due <= now).map(|(path, _)| path.clone()).collect()
    }

    /// When the next look is worth it; a time gone by means now.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().map(|(_, due)| *due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_rests_when_its_stamp_was_the_same_in_two_looks_that_far_apart() {
        let (path, quiet, start) = (Path::new("a"), Duration::from_secs(2), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let mut rest = Rest::default();
        // Looks of a poller, every half second: written at 0, between 500 and 1000, and never again.
        let looks = [(0, 1), (500, 1), (1000, 2), (1500, 2), (2999, 2), (3000, 2)];
        let held: Vec<_> =
            looks.map(|(now, written)| rest.holds(path, (9, 1, written, written), quiet, at(now))).into_iter().collect();
        assert_eq!(held, [true, true, true, true, true, false]);
        assert_eq!((rest.due(), rest.ripe(at(2999)).len(), rest.ripe(at(3000)).len()), (Some(at(3000)), 0, 1));
        rest.release(path);
        assert_eq!((rest.due(), rest.contains(path)), (None, false));
    }
}
