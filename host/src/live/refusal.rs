//! Why can't it be published, or gone back to?

use std::fmt;

use crate::live::route::Clash;

/// Why candidates can't be published.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Routes clash with what serves.
    Clash(Clash),
    /// Routes clash with what these plugins may have to go back to.
    WayBack(Vec<String>, Clash),
}

/// What to go back from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All plugins of the last publish.
    Last,
    /// This plugin: to the generation that served before.
    Plugin(String),
    /// This plugin, to the generation of this number.
    To(String, u64),
}

/// Why there is no way back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RollbackError {
    /// No such plugin serves.
    Unknown(String),
    /// It is the first, or all before it are gone; these are kept.
    Nothing(String, Vec<u64>),
    /// That generation isn't kept; these are.
    Gone(String, u64, Vec<u64>),
    /// That generation serves.
    Serves(String, u64),
    /// Nothing was published.
    Never,
    /// Its routes clash with what serves now.
    Clash(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clash(clash) => clash.fmt(f),
            Self::WayBack(plugins, clash) => write!(f, "if {} had to go back, {clash}", plugins.join(" and ")),
        }
    }
}

fn numbered(plugin: &str, numbers: &[u64]) -> String {
    numbers.iter().map(|number| format!("{plugin}={number}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for RollbackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(plugin) => write!(f, "no plugin {plugin} serves"),
            Self::Nothing(plugin, kept) if kept.is_empty() => {
                write!(f, "{plugin} has nothing to go back to: no earlier generation is kept")
            }
            Self::Nothing(plugin, kept) => {
                write!(f, "no generation before the one of {plugin} that serves is kept; {} can be gone to", numbered(plugin, kept))
            }
            Self::Gone(plugin, number, kept) if kept.is_empty() => {
                write!(f, "{plugin}={number} isn't kept, nor is any other generation of {plugin}")
            }
            Self::Gone(plugin, number, kept) => {
                write!(f, "{plugin}={number} isn't kept; {} can be gone back to", numbered(plugin, kept))
            }
            Self::Serves(plugin, number) => write!(f, "{plugin}={number} serves already"),
            Self::Never => f.write_str("nothing was published yet"),
            Self::Clash(clash) => f.write_str(clash),
        }
    }
}
