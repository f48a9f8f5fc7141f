//! What did a plugin's code make of its section?
//!
//! The plugin's code made the value, so that code drops it: on the reaper's thread, wherever the last call that could see it ended, and
//! before the code itself goes.

use std::sync::Arc;

use midair_abi::{Address, Outcome};

use super::file::{File, Section};
use crate::live::generation::{Ended, Generation};
use crate::mutation::{self, Bug};
use crate::plugin::exports::told;
use crate::report::error::Result;

/// A section as the code of one generation read it.
pub(crate) struct Config {
    json: String,
    digest: String,
    /// None if the plugin declares no config. Taken by `Drop` alone.
    value: Option<Value>,
}

struct Value {
    // Dropped first, by the generation's code.
    outcome: Outcome,
    generation: Arc<Generation>,
}

impl Config {
    /// That of a plugin that declares none.
    #[must_use]
    pub(crate) fn none() -> Arc<Self> {
        Arc::new(Self { json: String::new(), digest: String::new(), value: None })
    }

    /// Has the generation's code read its section, on this thread.
    ///
    /// # Errors
    ///
    /// E_CONFIG with file, line, key and expectation.
    pub(crate) fn read(generation: &Arc<Generation>, section: &Section) -> Result<Arc<Self>> {
        let Some(outcome) = generation.code().and_then(|code| code.configure(section.json())) else { return Ok(Self::none()) };
        match outcome.kind() {
            Outcome::DONE if outcome.value().0.is_null() => Ok(Self::none()),
            Outcome::DONE => {
                let value = Some(Value { outcome, generation: Arc::clone(generation) });
                Ok(Arc::new(Self { json: section.json().to_owned(), digest: section.digest(), value }))
            }
            Outcome::PANIC => Err(section.misfit(&[], &format!("reading it panicked: {}", told(&outcome.panic())))),
            _ if mutation::is(Bug::BadConfigTaken) => Self::read(generation, &File::missing(None).section(generation.plugin())),
            _ => {
                let keys = outcome.pairs().filter(|(name, _)| *name == Outcome::KEY);
                let keys: Vec<String> = keys.map(|(_, key)| String::from_utf8_lossy(key).into_owned()).collect();
                Err(section.misfit(&keys, &outcome.text()))
            }
        }
    }

    /// Where the value is, for the plugin's code alone; null without one. It lives as long as `self`.
    #[must_use]
    pub(crate) fn address(&self) -> Address {
        self.value.as_ref().map_or(Address(std::ptr::null()), |value| value.outcome.value())
    }

    /// Whether the plugin declares a config.
    #[must_use]
    pub(crate) fn is_declared(&self) -> bool {
        self.value.is_some()
    }

    /// Whether it was read from a section that says the same.
    #[must_use]
    pub(crate) fn says(&self, section: &Section) -> bool {
        self.json == section.json()
    }

    /// blake3 of what the section says, in hex; `None` if the plugin declares no config.
    #[must_use]
    pub(crate) fn digest(&self) -> Option<&str> {
        self.value.as_ref().map(|_| self.digest.as_str())
    }
}

impl Drop for Config {
    /// The last lease may end on any thread, in the middle of a request: plugin code is dropped elsewhere.
    fn drop(&mut self) {
        let Some(Value { outcome, generation }) = self.value.take() else { return };
        let reaper = generation.reaper().clone();
        if let Err(unsent) = reaper.send(Ended::Config { value: Box::new(outcome), of: generation }) {
            // The reaper ended with the host: nothing is freed any more, since nobody is left to do it safely.
            std::mem::forget(unsent.0);
        }
    }
}
