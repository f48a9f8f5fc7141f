//! Who logs?

use std::fmt;
use std::str::FromStr;

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

    fn from_str(text: &str) -> Result<Self, Unsaid> {
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
