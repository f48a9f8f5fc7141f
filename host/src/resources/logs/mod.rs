//! What becomes of what a plugin logs?
//!
//! Each library gets a `Source`, whose functions it calls with callsites, events and spans. They become events and spans of this process's
//! own `tracing` subscriber, whichever that is: under metadata that is made once for each callsite (`sites`), with the values copied out of
//! the call (`values`), and in spans of which the plugin has nothing but a number (`spans`). Beside its own fields each has [`FIELD`], which
//! says whose it is.
//!
//! What the subscriber doesn't want is left out in the plugin already. `tracing` tells each callsite when that changed, and so a callsite of
//! ours: then all libraries are asked to look again, on a thread of its own and under a deadline. That thread also takes what is logged while
//! a thread ends: the subscriber's own thread-locals may be gone there.
//!
//! A probe has no subscriber: what is logged there becomes events on its bus, and goes to the host.

mod late;
mod sites;
mod source;
mod spans;
mod values;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

pub(crate) use self::source::Source;
pub(crate) use self::spans::visit;
use crate::report::error::Result;
use crate::report::event::{Bus, Event};
use crate::sys::timeout::within;

/// The field of each event and span of a plugin's that says whose it is, in the words of a [`Speaker`]. One field, since each costs the
/// subscriber about as much as the whole way from the plugin.
pub const FIELD: &str = "midair";

/// Who logs: what the field [`FIELD`] says, `shop=3 pid=17 swaps=4` with an event and `shop=3` with a span.
///
/// ```
/// use midair::logs::Speaker;
///
/// let speaker: Speaker = "shop=3 pid=17 swaps=4".parse()?;
/// assert_eq!((speaker.plugin.as_str(), speaker.generation, speaker.pid, speaker.swaps), ("shop", 3, 17, 4));
/// # Ok::<(), midair::logs::Unsaid>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Speaker {
    /// The plugin's name.
    pub plugin: String,
    /// The number of its generation.
    pub generation: u64,
    /// The host's process; 0 with a span.
    pub pid: u64,
    /// How many publishes and rollbacks there were in that process; 0 with a span.
    pub swaps: u64,
}

/// This says of no plugin that it logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsaid;

impl fmt::Display for Unsaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected such as shop=3 pid=17 swaps=4")
    }
}

impl std::error::Error for Unsaid {}

impl FromStr for Speaker {
    type Err = Unsaid;

    fn from_str(text: &str) -> std::result::Result<Self, Unsaid> {
        let mut speaker = Self::default();
        for (at, word) in text.split(' ').enumerate() {
            let (name, number) = word.rsplit_once('=').ok_or(Unsaid)?;
            let number = number.parse().map_err(|_| Unsaid)?;
            match (at, name) {
                (0, _) => (speaker.plugin, speaker.generation) = (name.to_owned(), number),
                (_, "pid") => speaker.pid = number,
                (_, "swaps") => speaker.swaps = number,
                _ => return Err(Unsaid),
            }
        }
        Ok(speaker)
    }
}

/// Whether this is of a plugin, and not of the host itself.
#[must_use]
pub fn is_of_plugin(metadata: &tracing::Metadata<'_>) -> bool {
    sites::is_ours(metadata)
}

/// How many callsites of plugins this process knows; equal ones of all generations are one. It ends at 8,192: events and spans of any more
/// come under a callsite that says so.
#[must_use]
pub fn callsites() -> usize {
    sites::count()
}

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
    bus: Bus,
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
        late::begin(&logs)?;
        Ok(logs)
    }

    /// Those of a probe.
    #[must_use]
    pub(crate) fn of_probe(bus: Bus) -> Arc<Self> {
        Arc::new(Self::of(bus, Duration::ZERO, true))
    }

    fn of(bus: Bus, deadline: Duration, is_probe: bool) -> Self {
        let probe = is_probe.then(|| bus.clone());
        Self { probe, bus, deadline, swaps: Arc::default(), sources: Mutex::default(), filter: Mutex::default() }
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
                self.bus.say(Event::Warning { message });
            }
        }
    }
}
