//! What is said over and over, and is told once?
//!
//! A client that polls a route which panics makes an event of each request. In a terminal the first of its kind is told whole, and those like it
//! are counted: a line says how many there were. Machines that read `--json` get all of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::tame;
use crate::event::Event;

/// So long those like the first are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// So many kinds are told apart; what comes beyond is of one kind.
const KINDS: usize = 256;

/// So much of a warning says which it is.
const HEAD: usize = 80;

/// What was told, and how often it was said since.
#[derive(Default)]
pub(super) struct Repeats(HashMap<Vec<String>, Told>);

struct Told {
    since: Instant,
    more: u64,
    /// What it is, in a line.
    what: String,
}

impl Repeats {
    /// Whether this is to be told; if not, it was counted.
    pub(super) fn is_new(&mut self, event: &Event, now: Instant) -> bool {
        let Some((kind, what)) = kind(event) else { return true };
        let full = self.0.len() >= KINDS;
        let kind = if full && !self.0.contains_key(&kind) { Vec::new() } else { kind };
        match self.0.get_mut(&kind) {
            Some(told) => {
                told.more += 1;
                false
            }
            None => {
                let what = if kind.is_empty() { "all kinds of things".to_owned() } else { what };
                self.0.insert(kind, Told { since: now, more: 0, what });
                true
            }
        }
    }

    /// When something is to be told of what was counted.
    #[must_use]
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().map(|told| told.since + WINDOW).min()
    }

    /// What is to be told of what was counted, of all of it at the end; what didn't come again is new once more.
    pub(super) fn counted(&mut self, now: Instant, is_end: bool) -> Vec<String> {
        let is_due = |told: &Told| is_end || told.since + WINDOW <= now;
        let line = |told: &Told| {
            let seconds = now.saturating_duration_since(told.since).as_secs().max(1);
            format!("and {} like it in {seconds} s: {}", told.more, told.what)
        };
        let mut lines: Vec<String> = self.0.values().filter(|told| told.more > 0 && is_due(told)).map(line).collect();
        lines.sort();
        self.0.retain(|_, told| !is_due(told) || told.more > 0);
        for told in self.0.values_mut().filter(|told| is_due(told)) {
            (told.since, told.more) = (now, 0);
        }
        lines
    }
}

/// By what an event is like others, and what it is in a line; `None` of what is told each time.
fn kind(event: &Event) -> Option<(Vec<String>, String)> {
    match event {
        Event::Panicked { plugin, generation, handler, location, .. } => {
            let whose = if handler.is_empty() { String::new() } else { format!(" {handler}") };
            let what = format!("{plugin} {generation}{whose} panicked at {location}");
            Some((vec!["panicked".to_owned(), plugin.clone(), generation.to_string(), handler.clone(), location.clone()], what))
        }
        Event::Failed { plugin, generation, handler, kind, .. } => {
            let what = format!("{plugin} {generation} {handler} failed");
            Some((vec!["failed".to_owned(), plugin.clone(), generation.to_string(), handler.clone(), format!("{kind:?}")], what))
        }
        Event::Warning { message } => {
            // Numbers are what differs from one to the next.
            let kind: String = message.chars().filter(|letter| !letter.is_ascii_digit()).collect();
            let mut what: String = message.lines().next().unwrap_or_default().chars().take(HEAD).collect();
            if what.len() < message.len() {
                what.push_str("..");
            }
            Some((vec!["warning".to_owned(), kind], what))
        }
        _ => None,
    }
    .map(|(kind, what)| (kind, tame::text(&what)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;

    fn failed(handler: &str, error: &str) -> Event {
        let (plugin, handler, error) = ("shop".to_owned(), handler.to_owned(), error.to_owned());
        Event::Failed { plugin, generation: 3, handler, kind: Kind::Request, error }
    }

    #[test]
    fn the_first_is_told_whole_and_those_like_it_as_a_number() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let told = (0..313).filter(|n| repeats.is_new(&failed("create", &format!("order {n}")), start)).count();
        assert_eq!((told, repeats.due()), (1, Some(start + WINDOW)));
        assert!(repeats.is_new(&failed("remove", "another"), start), "another handler");
        assert_eq!(repeats.counted(start + WINDOW / 2, false), Vec::<String>::new(), "not yet");
        assert_eq!(repeats.counted(start + WINDOW, false), ["and 312 like it in 10 s: shop 3 create failed"]);
        // It goes on, and then it doesn't.
        assert!(!repeats.is_new(&failed("create", "again"), start + WINDOW));
        assert!(repeats.is_new(&failed("remove", "another"), start + WINDOW), "that came once");
        assert_eq!(repeats.counted(start + WINDOW * 2, false), ["and 1 like it in 10 s: shop 3 create failed"]);
        assert_eq!(repeats.counted(start + WINDOW * 3, false), Vec::<String>::new());
        assert!(repeats.is_new(&failed("create", "again"), start + WINDOW * 3));
        assert_eq!((repeats.counted(start + WINDOW * 3, true), repeats.due()), (Vec::new(), None));
    }

    #[test]
    fn however_many_kinds_there_are_what_is_kept_has_an_end() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let told = (0..10_000).filter(|n| repeats.is_new(&failed(&"h".repeat(*n), "x"), now)).count();
        assert_eq!(told, KINDS + 1);
        assert_eq!(
            repeats.counted(now + WINDOW, false),
            [format!("and {} like it in 10 s: all kinds of things", 10_000 - KINDS - 1)]
        );
        let warnings = [1, 22, 333].map(|n| repeats.is_new(&Event::Warning { message: format!("{n} events are missing") }, now));
        assert_eq!(warnings, [true, false, false]);
    }
}
