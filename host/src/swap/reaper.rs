//! Who frees what is left of generations?

use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::live::generation::Ended;
use crate::report::event::{Bus, Event};
use crate::sys::timeout::{Overrun, within};

/// Tells of ended terms, and frees what is left of generations, one after the other, each under a deadline: what a plugin's drop does is
/// the plugin's.
pub(super) fn reap(ended: &Receiver<Ended>, bus: &Bus, deadline: Duration) {
    while let Ok(ended) = ended.recv() {
        match ended {
            Ended::Term { plugin, number } => bus.say(Event::Drained { plugin, generation: number }),
            Ended::Use { plugin, number, code, copy } => {
                free(bus, deadline, &format!("{plugin}={number}: dropping the plugin"), move || {
                    drop(code);
                    drop(copy);
                });
            }
            // The code goes after what it made.
            Ended::Config { value, of } => {
                let what = format!("{of}: dropping its config");
                free(bus, deadline, &what, move || {
                    drop(value);
                    drop(of);
                });
            }
        }
    }
}

fn free(bus: &Bus, deadline: Duration, what: &str, free: impl FnOnce() + Send + 'static) {
    if let Err(overrun) = within("midair-reap", deadline, free) {
        let why = match overrun {
            Overrun::Deadline(_) => "takes too long; its thread was given up",
            Overrun::NoThread => "found no thread to run on; it is leaked",
            Overrun::Broke => "broke",
        };
        bus.say(Event::Warning { message: format!("{what} {why}") });
    }
}
