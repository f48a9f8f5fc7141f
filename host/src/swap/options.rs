//! How is a host set up, and what is handed to it?

use std::path::PathBuf;
use std::time::Duration;

pub use midair_abi::store::Limits;

pub use crate::artifact::stage::Trust;
use crate::live::probation::Rules;
use crate::trial::probe::Probe;

/// How a host is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder for private copies and for what a next run has to know; no other host may use it.
    pub data: PathBuf,
    /// Whether error texts may reach clients.
    pub dev: bool,
    /// The config file of the plugins, `[plugin.NAME]` for each; without one every section is empty. It is read at the start of each
    /// attempt.
    pub config: Option<PathBuf>,
    /// How long opening a library, building its plugin, its `init`, a self-test and the trial of a table may take, each.
    pub deadline: Duration,
    /// Whether new bytes are tried in a child process first. It is on, and needs a line in the program's `main`: see [`probe::hook`](crate::probe::hook).
    pub probe: Probe,
    /// The largest artifact that is taken, in bytes.
    pub artifact_limit: u64,
    /// Whose files are taken as artifacts.
    pub trust: Trust,
    /// Whether an artifact may say where the libraries that it needs are looked for (RPATH, RUNPATH), or name them by path. It is told.
    pub run_paths: bool,
    /// The libraries that an artifact may need beside those of C and of Rust themselves; any if `None`.
    pub allow_libraries: Option<Vec<String>>,
    /// Whether private copies are whole from the start and, once their code serves, on the disk whatever happens to the machine. Else
    /// what the loader doesn't read is copied when the new code serves.
    pub durable: bool,
    /// How many generations of a plugin that served before are kept, to go back to by hand. What comes back by itself is kept anyway.
    pub keep: usize,
    /// When new code is committed, and when the code before it comes back.
    pub rules: Rules,
    /// How many libraries may be opened in all; `None` for as many as the system has room for. None is closed before the host ends, and a
    /// swap that would open one more is refused.
    pub most_libraries: Option<usize>,
    /// Whether a run that died is remembered: the next one then starts with what was committed last, and doesn't take again by itself what
    /// was on trial when it died. It needs [`durable`](Self::durable) copies.
    pub recovers: bool,
    /// How long work that belongs to no request goes on after newer code was published, before what may be dropped is, and the rest is named.
    pub retire: Duration,
    /// The file that keeps the plugins' state, made if it isn't there; it ends with the process if `None`. What was written is on the disk when it
    /// is answered. It needs the feature `redb`, and one host has it at a time.
    pub state: Option<PathBuf>,
    /// How large a key and a value of the state may be.
    pub limits: Limits,
}

impl Options {
    /// The defaults for production with this folder: those of `midair run`. An artifact has at most 1 GiB, nobody else may be able to change
    /// it, and it doesn't say where libraries are looked for.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            dev: false,
            config: None,
            deadline: Duration::from_secs(10),
            probe: Probe::On,
            artifact_limit: 1 << 30,
            trust: Trust::Strict { owners: Vec::new() },
            run_paths: false,
            allow_libraries: None,
            durable: true,
            keep: 4,
            most_libraries: None,
            rules: Rules::PRODUCTION,
            recovers: true,
            retire: Duration::from_secs(30),
            state: None,
            limits: Limits::default(),
        }
    }

    /// The defaults for development with this folder, as `midair dev` has them: error texts are shown, whatever can be read is taken, a
    /// breach is told and no more, and each run begins anew.
    #[must_use]
    pub fn development(data: impl Into<PathBuf>) -> Self {
        let (trust, rules) = (Trust::Readable, Rules::DEVELOPMENT);
        Self { dev: true, trust, run_paths: true, durable: false, rules, recovers: false, ..Self::new(data) }
    }
}

/// A file that holds a plugin's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The plugin's name as its builder knows it; empty to take what the manifest says.
    pub plugin: String,
    /// The file. It is read and copied, never opened in place.
    pub path: PathBuf,
}
