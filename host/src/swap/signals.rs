//! Did a plugin take a signal that the host uses?
//!
//! Whoever takes SIGTERM from a host takes its end from it: the host would go on while its supervisor waits, and be killed amid requests.
//! The handler that is put back says by its address whose it was. A signal that was left to the system or is ignored has no address: then
//! it was the code that just ran, and outside of those steps it is not known whose.

use std::sync::{Arc, Weak};

use super::shared::Shared;
use crate::live::generation::Generation;
use crate::report::event::Event;
use crate::sys::signals::{self, Taken};

/// Puts back what was taken of the host's signals, and says by whom. `ran` is the code that ran last, and where.
pub(super) fn look(shared: &Shared, ran: Option<(&str, &str)>) {
    for taken in signals::put_back() {
        let (who, when) = match (owner(shared, &taken), ran) {
            // It may have been another that serves, in the meantime.
            (Some(owner), Some((name, when))) if owner == name => (owner, format!(" {when}")),
            (Some(owner), _) => (owner, String::new()),
            (None, Some((name, when))) => (name.to_owned(), format!(" {when}")),
            (None, None) => ("a plugin".to_owned(), String::new()),
        };
        let (signal, how) = (taken.name(), taken.how());
        let message = format!(
            "{who} took {signal} from the host{when}: it {how}; the host's handler is put back. A plugin hears of the host's end by `ctx.retiring()`"
        );
        shared.context.bus.say(Event::Warning { message });
    }
}

/// The generation in whose library the handler lies.
fn owner(shared: &Shared, taken: &Taken) -> Option<String> {
    let handler = taken.handler()?;
    let known: Vec<Arc<Generation>> = shared.known.lock().values().filter_map(Weak::upgrade).collect();
    let is_its = |generation: &&Arc<Generation>| generation.code().is_some_and(|code| code.module().contains(handler));
    known.iter().find(is_its).map(|generation| generation.to_string())
}
