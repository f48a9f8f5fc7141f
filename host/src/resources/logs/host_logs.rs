//! What does one host do for the logs of its plugins?

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use midair_abi::RootRef;
use parking_lot::Mutex;

use super::late::{self, Changes};
use super::sites;
use super::source::{Source, Warn};
use crate::report::error::Result;
use crate::report::event::{Bus, Event};
use crate::sys::timeout::within;

/// A filter of the program's subscriber that can be changed while it runs.
pub trait Filter: Send + Sync {
    /// What holds now, in its own words.
    fn text(&self) -> String;

    /// Lets another one hold.
    ///
    /// # Errors
    ///
    /// What is wrong with `text`; then the one before still holds.
    fn replace(&self, text: &str) -> std::result::Result<(), String>;
}

/// Why there is no other filter now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unchanged {
    /// The program has no filter that can be changed.
    Fixed,
    /// The filter makes no sense; what is wrong with it.
    Unfit(String),
}

/// The logs of one host's plugins.
pub struct Logs {
    /// Where what is logged becomes events of the host, in a probe.
    probe: Option<Bus>,
    warn: Arc<Warn>,
    deadline: Duration,
    swaps: Arc<AtomicU64>,
    sources: Mutex<Vec<Weak<Source>>>,
    filter: Mutex<Option<Arc<dyn Filter>>>,
}

impl Logs {
    /// Those of a host; `deadline` is for each library that looks again at what is wanted.
    ///
    /// # Errors
    ///
    /// If the thread can't be started that a process has for them.
    pub(crate) fn new(bus: Bus, deadline: Duration) -> Result<Arc<Self>> {
        let logs = Arc::new(Self::of(bus, deadline, false));
        begin(&logs)?;
        Ok(logs)
    }

    /// Those of a probe.
    #[must_use]
    pub(crate) fn of_probe(bus: Bus) -> Arc<Self> {
        Arc::new(Self::of(bus, Duration::ZERO, true))
    }

    fn of(bus: Bus, deadline: Duration, is_probe: bool) -> Self {
        let probe = is_probe.then(|| bus.clone());
        let warn: Arc<Warn> = Arc::new(move |message| bus.say(Event::Warning { message }));
        Self { probe, warn, deadline, swaps: Arc::default(), sources: Mutex::default(), filter: Mutex::default() }
    }

    /// Lets a library whose types were compared log as this generation.
    #[must_use]
    pub(crate) fn attach(&self, root: RootRef, plugin: &str, generation: u64) -> Arc<Source> {
        let source = self.source(Some(root), plugin, generation);
        if source.can_log() {
            // On the list before its library first asks what is wanted: a change from then on reaches it.
            self.sources.lock().push(Arc::downgrade(&source));
            source.begin();
        }
        source
    }

    /// A line of a plugin that isn't opened in this process.
    pub(crate) fn tell(&self, plugin: &str, generation: u64, level: u32, message: &str) {
        let source = self.source(None, plugin, generation);
        source.say(level, message);
    }

    fn source(&self, root: Option<RootRef>, plugin: &str, generation: u64) -> Arc<Source> {
        Source::new(root, (plugin, generation), &self.swaps, &self.warn, self.probe.clone())
    }

    /// There were so many publishes and rollbacks.
    pub(crate) fn swapped(&self, epoch: u64) {
        self.swaps.fetch_max(epoch, Ordering::Relaxed);
    }

    /// Names the filter that [`refilter`](Self::refilter) changes, for whoever asks the admin listener.
    pub fn offer(&self, filter: impl Filter + 'static) {
        *self.filter.lock() = Some(Arc::new(filter));
    }

    /// What holds now, if the program offered a filter.
    #[must_use]
    pub fn filter(&self) -> Option<String> {
        let filter = self.filter.lock().clone();
        filter.map(|filter| filter.text())
    }

    /// Lets another filter hold, and returns when every library has heard of it.
    ///
    /// # Errors
    ///
    /// [`Unchanged`]: then the one before still holds.
    pub fn refilter(&self, text: &str) -> std::result::Result<(), Unchanged> {
        let filter = self.filter.lock().clone().ok_or(Unchanged::Fixed)?;
        filter.replace(text).map_err(Unchanged::Unfit)?;
        sites::refiltered();
        self.look_again();
        Ok(())
    }

    /// Has every library ask anew what is wanted. It happens by itself soon after the subscriber's filter changed; this returns when it has
    /// happened. Code of plugins runs, though none of their authors'.
    pub fn look_again(&self) {
        let sources: Vec<Arc<Source>> = {
            let mut sources = self.sources.lock();
            sources.retain(|source| source.upgrade().is_some_and(|source| !source.is_closed()));
            sources.iter().filter_map(Weak::upgrade).collect()
        };
        for source in sources {
            let asked = Arc::clone(&source);
            if within("midair-refilter", self.deadline, move || asked.look_again()).is_err() {
                let message = format!("{source}: it didn't come to hear that another filter of logs holds");
                (self.warn)(message);
            }
        }
    }
}

/// The logs of all hosts of this process.
static ALL: Mutex<Vec<Weak<Logs>>> = Mutex::new(Vec::new());

/// These logs hear of changes from now on.
fn begin(logs: &Arc<Logs>) -> Result<()> {
    {
        let mut all = ALL.lock();
        all.retain(|logs| logs.strong_count() > 0);
        all.push(Arc::downgrade(logs));
    }
    late::begin(Changes { level: sites::most, listen: sites::listen, look_again: all_look_again })
}

fn all_look_again() {
    let all: Vec<Arc<Logs>> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    all.iter().for_each(|logs| logs.look_again());
}
