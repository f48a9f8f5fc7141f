//! Which names lead to a file?
//!
//! Walks to a path as the kernel does, name by name and link by link. What a name is about is for others to judge.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// More links than this lead nowhere (the kernel's own limit).
pub const MOST_LINKS: usize = 40;

/// Each name on the way to a path in turn, from below the root on, with no link above it; names that aren't there are walked like any other.
pub struct Way {
    at: PathBuf,
    rest: VecDeque<OsString>,
    links: usize,
}

impl Way {
    /// To an absolute path.
    pub fn to(path: &Path) -> Self {
        Self { at: PathBuf::from("/"), rest: parts(path).collect(), links: 0 }
    }

    /// Where it has led so far: in the end a path without links, if [`is_lost`](Self::is_lost) doesn't say otherwise.
    pub fn here(&self) -> &Path {
        &self.at
    }

    /// Whether it ended since it had too many links.
    pub fn is_lost(&self) -> bool {
        self.links > MOST_LINKS
    }
}

impl Iterator for Way {
    type Item = PathBuf;

    fn next(&mut self) -> Option<PathBuf> {
        while let Some(part) = self.rest.pop_front().filter(|_| !self.is_lost()) {
            if part == "/" {
                self.at = PathBuf::from("/");
                continue;
            }
            if part == ".." {
                self.at.pop();
                continue;
            }
            self.at.push(part);
            let place = self.at.clone();
            if let Ok(target) = fs::read_link(&place) {
                self.links += 1;
                if !self.is_lost() {
                    self.at.pop();
                    parts(&target).rev().for_each(|part| self.rest.push_front(part));
                }
            }
            return Some(place);
        }
        None
    }
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter(|part| *part != Component::CurDir).map(|part| part.as_os_str().to_owned())
}
