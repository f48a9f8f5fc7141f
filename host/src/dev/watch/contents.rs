//! What differs from what was last taken?
//!
//! Two maps from paths to hashes: as last seen, and as they were when a build began. A path whose two hashes differ is dirty. Because
//! the second map is set before a build starts and never by its end, an edit made while it runs stays dirty.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A content's hash; `None` is a file that isn't there.
pub(super) type Print = Option<[u8; 32]>;

#[derive(Debug, Default)]
pub(super) struct Contents {
    seen: BTreeMap<PathBuf, Print>,
    taken: BTreeMap<PathBuf, Print>,
}

impl Contents {
    /// Notes what is there now. A path never seen before counts as one that wasn't there.
    pub(super) fn observe(&mut self, path: &Path, print: Print) {
        match self.seen.get_mut(path) {
            Some(seen) => *seen = print,
            None if print.is_none() => {}
            None => {
                self.seen.insert(path.to_owned(), print);
            }
        }
    }

    /// Notes a path that is watched from now on and was there all along: it isn't dirty.
    pub(super) fn adopt(&mut self, path: &Path, print: Print) {
        self.seen.insert(path.to_owned(), print);
        self.taken.insert(path.to_owned(), print);
    }

    /// Forgets a path that no longer counts.
    pub(super) fn forget(&mut self, path: &Path) {
        self.seen.remove(path);
        self.taken.remove(path);
    }

    /// Takes what is there as known, before a build of it begins.
    pub(super) fn take(&mut self) {
        self.seen.retain(|_, print| print.is_some());
        self.taken.clone_from(&self.seen);
    }

    /// Takes one path as known.
    pub(super) fn take_one(&mut self, path: &Path) {
        let print = self.seen.get(path).copied().flatten();
        self.taken.insert(path.to_owned(), print);
    }

    /// Takes back that a path is known: whatever is there next is dirty.
    pub(super) fn doubt(&mut self, path: &Path) {
        self.taken.remove(path);
    }

    /// What differs from what was taken.
    pub(super) fn dirty(&self) -> impl Iterator<Item = &Path> {
        let taken = |path: &Path| self.taken.get(path).copied().flatten();
        let changed = self.seen.iter().filter(move |(path, print)| **print != taken(path)).map(|(path, _)| path.as_path());
        let gone = self.taken.iter().filter(|(path, print)| print.is_some() && !self.seen.contains_key(*path));
        changed.chain(gone.map(|(path, _)| path.as_path()))
    }

    /// What was taken, of files that were there.
    pub(super) fn taken(&self) -> impl Iterator<Item = (&PathBuf, &[u8; 32])> {
        self.taken.iter().filter_map(|(path, print)| Some((path, print.as_ref()?)))
    }

    pub(super) fn last_seen(&self, path: &Path) -> Option<Print> {
        self.seen.get(path).copied()
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.seen.keys().cloned().collect()
    }

    /// How many files are there.
    pub(super) fn count(&self) -> usize {
        self.seen.values().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a=1` is seen with content 1, `a-` is seen gone, `+a=1` is adopted, `!` takes everything, `!a` takes one, `~a`
    /// doubts one.
    fn check(story: &str, dirty: &str) {
        let mut contents = Contents::default();
        for step in story.split_whitespace() {
            let print = |text: &str| Some([text.as_bytes()[0]; 32]);
            if step == "!" {
                contents.take();
            } else if let Some(path) = step.strip_prefix('!') {
                contents.take_one(Path::new(path));
            } else if let Some(path) = step.strip_prefix('~') {
                contents.doubt(Path::new(path));
            } else if let Some((path, content)) = step.strip_prefix('+').and_then(|step| step.split_once('=')) {
                contents.adopt(Path::new(path), print(content));
            } else if let Some((path, content)) = step.split_once('=') {
                contents.observe(Path::new(path), print(content));
            } else if let Some(path) = step.strip_suffix('-') {
                contents.observe(Path::new(path), None);
            }
        }
        let found: Vec<_> = contents.dirty().map(|path| path.display().to_string()).collect();
        assert_eq!(found.join(" "), dirty, "{story}");
    }

    #[test]
    fn only_another_content_is_dirty() {
        check("a=1", "a");
        check("a=1 !", "");
        check("a=1 ! a=1", "");
        check("a=1 ! a=2", "a");
        check("a=1 ! a=2 a=1", "");
        check("a=1 ! a-", "a");
        check("a=1 ! a- !", "");
        check("a=1 ! a- ! a=1", "a");
        check("a-", "");
    }

    #[test]
    fn an_edit_while_a_build_runs_stays_dirty_until_the_next_build_begins() {
        check("a=1 ! a=2 ! a=3", "a");
        check("a=1 b=1 ! a=2 b=2 !a", "b");
    }

    #[test]
    fn a_doubted_file_is_dirty_with_the_same_content() {
        check("a=1 b=1 ! ~a", "a");
        check("a=1 ! ~a !a", "");
    }

    #[test]
    fn an_adopted_file_is_not_dirty() {
        check("+a=1", "");
        check("+a=1 a=2", "a");
    }
}
