//! Is every change found, whatever the system says of it and when?
//!
//! Any bytes are read as a story: files are written, renamed and removed, events of that arrive late or get lost, and a loop sleeps until it
//! is woken or a look is due, as the real one does. In the end the files that differ from what was last taken are those that are found to.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::contents::{Contents, Print};
use super::pending::{Hint, Pending, Sight, Taken};

/// How many files there are.
const FILES: usize = 4;

struct Story {
    now: Instant,
    /// What is on the disk.
    disk: [Option<u8>; FILES],
    /// Those that somebody has open for writing.
    open: [bool; FILES],
    /// What the system has to tell and hasn't told yet.
    late: VecDeque<(usize, Hint)>,
    pending: Pending,
    contents: Contents,
    /// Those that the system said are being written, and nothing since.
    writing: [bool; FILES],
    /// Events were lost, and no look was taken since: what is told meanwhile is worth nothing.
    lost: bool,
    /// Whether the loop was woken since its last look, and when it looks even if it isn't.
    woken: bool,
    due: Option<Instant>,
    /// What the loop saw last, and took last.
    seen: [Option<u8>; FILES],
    taken: [Option<u8>; FILES],
}

impl Story {
    fn new(quiet: Duration) -> Self {
        Self {
            now: Instant::now(),
            disk: [None; FILES],
            open: [false; FILES],
            late: VecDeque::new(),
            pending: Pending::new(quiet),
            contents: Contents::default(),
            writing: [false; FILES],
            lost: false,
            woken: false,
            due: None,
            seen: [None; FILES],
            taken: [None; FILES],
        }
    }

    fn happens(&mut self, what: u8, file: usize, content: u8) {
        match what % 12 {
            // Opened, written, and left open for now.
            0 => {
                (self.disk[file], self.open[file]) = (Some(content), true);
                self.late.push_back((file, Hint::Writing));
            }
            1 if self.open[file] => {
                self.open[file] = false;
                self.late.push_back((file, Hint::Done));
            }
            // Saved whole under another name and renamed into place.
            1 | 2 => {
                (self.disk[file], self.open[file]) = (Some(content), false);
                self.late.push_back((file, Hint::Done));
            }
            3 => {
                (self.disk[file], self.open[file]) = (None, false);
                self.late.push_back((file, Hint::Gone));
            }
            // Renamed over another one.
            4 => {
                let to = usize::from(content) % FILES;
                self.disk[to] = self.disk[file].take();
                self.open[file] = false;
                self.late.extend([(file, Hint::Gone), (to, Hint::Done)]);
            }
            5 => self.late.push_back((file, Hint::Touched)),
            6 => self.hear(1 + usize::from(content) % 4),
            7 => self.now += Duration::from_millis(u64::from(content)),
            8 => {
                // What was not told yet never will be.
                self.late.clear();
                (self.writing, self.lost) = ([false; FILES], true);
                self.woken |= self.pending.note_lost();
            }
            9 => self.woken |= self.pending.note_all(),
            10 => self.wakes(),
            11 => match content % 4 {
                0 => {
                    self.contents.take_one(&path(file));
                    self.taken[file] = self.seen[file];
                }
                1 => {
                    self.contents.doubt(&path(file));
                    self.taken[file] = None;
                }
                _ => {
                    self.contents.take();
                    self.taken = self.seen;
                }
            },
            _ => {}
        }
    }

    fn hear(&mut self, events: usize) {
        for (file, hint) in self.late.drain(..events.min(self.late.len())) {
            self.woken |= self.pending.note(path(file), hint, self.now);
            let ends = matches!(hint, Hint::Done | Hint::Gone);
            self.writing[file] = !self.lost && (hint == Hint::Writing || self.writing[file] && !ends);
        }
    }

    /// The loop looks, if there is a reason that it knows of.
    fn wakes(&mut self) {
        if !self.woken && self.due.is_none_or(|due| due > self.now) {
            return;
        }
        (self.woken, self.lost) = (false, false);
        let Taken { all, paths } = self.pending.take(self.now);
        for file in 0..FILES {
            match paths.get(&path(file)) {
                Some(Sight::Stands) => assert!(!self.writing[file], "what is being written doesn't stand"),
                Some(Sight::Quiet) => self.writing[file] = false,
                Some(Sight::Unsure) | None => {}
            }
            if all || paths.contains_key(&path(file)) {
                self.contents.observe(&path(file), print(self.disk[file]));
                self.seen[file] = self.disk[file];
            }
        }
        self.due = self.pending.due();
        self.agrees("at a look", self.seen);
    }

    /// What is found to differ is what does, if this is there.
    fn agrees(&self, when: &str, there: [Option<u8>; FILES]) {
        let mut found: Vec<&Path> = self.contents.dirty().collect();
        found.sort();
        let differs = (0..FILES).filter(|file| there[*file] != self.taken[*file]).map(path);
        assert_eq!(found, differs.collect::<Vec<_>>(), "{when}: {there:?} after {:?} was taken", self.taken);
    }
}

fn path(file: usize) -> PathBuf {
    PathBuf::from(format!("f{file}"))
}

fn print(content: Option<u8>) -> Print {
    content.map(|content| [content; 32])
}

/// Tells a story.
///
/// # Panics
///
/// If a change isn't found in the end, or one is found that isn't there.
pub(crate) fn tell(bytes: &[u8]) {
    let Some((quiet, actions)) = bytes.split_first() else { return };
    let mut story = Story::new(Duration::from_millis(u64::from(*quiet)));
    for action in actions.chunks_exact(2) {
        story.happens(action[0], usize::from(action[0] / 12) % FILES, action[1]);
    }
    // Everything is told in the end, and what is left open is quiet.
    story.hear(usize::MAX);
    for _ in 0..=2 * FILES {
        story.now = story.due.map_or(story.now, |due| due.max(story.now));
        story.wakes();
    }
    assert_eq!((story.woken, story.due), (false, None), "nothing is left to be looked at");
    story.agrees("in the end", story.disk);
}
