//! What went wrong, at which step, with which thing, and what should one do?
//!
//! One opaque type for the whole host. It comes in two tiers: [`Tier::Rejected`] leaves the host serving what it served before,
//! [`Tier::Fatal`] means that it can't start or go on. Nothing here prints; whoever ends the story prints it once.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A stable name for a kind of failure, for scripts and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(clippy::upper_case_acronyms, reason = "written as users read them")]
pub enum Code {
    /// The build failed.
    #[serde(rename = "E_BUILD")]
    Build,
    /// The artifact is empty or larger than allowed.
    #[serde(rename = "E_SIZE")]
    Size,
    /// The artifact can't be read or isn't a regular file.
    #[serde(rename = "E_PERM")]
    Perm,
    /// A file operation of the host failed.
    #[serde(rename = "E_IO")]
    Io,
    /// The artifact is shorter than its own headers say.
    #[serde(rename = "E_TRUNC")]
    Trunc,
    /// The artifact is no shared library.
    #[serde(rename = "E_ELF")]
    Elf,
    /// The artifact was built for another machine.
    #[serde(rename = "E_ARCH")]
    Arch,
    /// A library that the artifact needs can't be had.
    #[serde(rename = "E_DEPS")]
    Deps,
    /// The plugin speaks another version of the border, or was built in a way that can't be served.
    #[serde(rename = "E_ABI")]
    Abi,
    /// The artifact's bytes aren't those that the digest beside it names.
    #[serde(rename = "E_HASH")]
    Hash,
    /// The trial in a child process ended in a death, an exit, a hang outside of a hook, or a failed self-test.
    #[serde(rename = "E_PROBE")]
    Probe,
    /// The plugin's root symbol is missing.
    #[serde(rename = "E_SYM")]
    Sym,
    /// A type at the border differs between host and plugin.
    #[serde(rename = "E_LAYOUT")]
    Layout,
    /// The config file can't be read, or a plugin can't take its section.
    #[serde(rename = "E_CONFIG")]
    Config,
    /// The plugin's own start failed.
    #[serde(rename = "E_INIT")]
    Init,
    /// A call into the plugin outlived its deadline.
    #[serde(rename = "E_TIMEOUT")]
    Timeout,
    /// A declared table holds values that the new code can't read.
    #[serde(rename = "E_STATE")]
    State,
    /// Two handlers claim the same route.
    #[serde(rename = "E_ROUTES")]
    Routes,
    /// New code did worse than the code before, which serves again.
    #[serde(rename = "E_PROBATION")]
    Probation,
    /// These bytes were rolled back, or a host died of them, and they are held.
    #[serde(rename = "E_HELD")]
    Held,
    /// One more generation would take more of the system than there is.
    #[serde(rename = "E_BUDGET")]
    Budget,
    /// The host itself is at fault.
    #[serde(rename = "E_INTERNAL")]
    Internal,
    /// The host was used in a way that can't work.
    #[serde(rename = "E_USAGE")]
    Usage,
}

impl Code {
    /// The code as it stands in events and messages, such as `E_LAYOUT`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Build => "E_BUILD",
            Code::Size => "E_SIZE",
            Code::Perm => "E_PERM",
            Code::Io => "E_IO",
            Code::Trunc => "E_TRUNC",
            Code::Elf => "E_ELF",
            Code::Arch => "E_ARCH",
            Code::Deps => "E_DEPS",
            Code::Abi => "E_ABI",
            Code::Hash => "E_HASH",
            Code::Probe => "E_PROBE",
            Code::Sym => "E_SYM",
            Code::Layout => "E_LAYOUT",
            Code::Config => "E_CONFIG",
            Code::Init => "E_INIT",
            Code::Timeout => "E_TIMEOUT",
            Code::State => "E_STATE",
            Code::Routes => "E_ROUTES",
            Code::Probation => "E_PROBATION",
            Code::Held => "E_HELD",
            Code::Budget => "E_BUDGET",
            Code::Internal => "E_INTERNAL",
            Code::Usage => "E_USAGE",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step of the journey that a change takes, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// Before any journey: the host itself comes up.
    Start,
    /// A change is seen.
    Watch,
    /// The change is compiled.
    Build,
    /// The artifact becomes a private copy.
    Stage,
    /// The copy is judged without running it.
    Inspect,
    /// The copy is tried in a child process.
    Probe,
    /// The copy is opened in this process.
    Load,
    /// Its types at the border are compared with the host's, and its config with its own.
    Check,
    /// Its own start runs.
    Init,
    /// What it declares is held against what is there.
    Try,
    /// The one store that makes it live.
    Publish,
    /// The new generation is watched.
    Probation,
    /// The generation before it goes out of service.
    Retire,
    /// The generation before it is put back.
    Rollback,
}

impl Stage {
    /// The step's name as it stands in events and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Start => "start",
            Stage::Watch => "watch",
            Stage::Build => "build",
            Stage::Stage => "stage",
            Stage::Inspect => "inspect",
            Stage::Probe => "probe",
            Stage::Load => "load",
            Stage::Check => "check",
            Stage::Init => "init",
            Stage::Try => "try",
            Stage::Publish => "publish",
            Stage::Probation => "probation",
            Stage::Retire => "retire",
            Stage::Rollback => "rollback",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a failure reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// This attempt is over; the host serves what it served before.
    Rejected,
    /// The host can't start or go on.
    Fatal,
}

/// A failure: its code, its step, the thing it happened to, the reason and the way out.
///
/// `Display` says step, thing and reason in one line without the code and without the source; walk [`source`](StdError::source) for
/// what lies below.
pub struct Error(Box<Inner>);

struct Inner {
    tier: Tier,
    code: Code,
    stage: Stage,
    subject: String,
    reason: String,
    help: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure that ends one attempt.
    #[must_use]
    pub fn rejected(code: Code, stage: Stage, subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(Tier::Rejected, code, stage, subject.into(), reason.into())
    }

    /// A failure that the host can't carry on from.
    #[must_use]
    pub fn fatal(code: Code, subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(Tier::Fatal, code, Stage::Start, subject.into(), reason.into())
    }

    fn new(tier: Tier, code: Code, stage: Stage, subject: String, reason: String) -> Self {
        Self(Box::new(Inner { tier, code, stage, subject, reason, help: None, source: None }))
    }

    /// Adds what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Adds the cause below.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// How far it reaches.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.0.tier
    }

    /// Its stable name.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The step at which it happened.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    /// The file, plugin or address that it happened to.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// What to do next, where there is something to do.
    #[must_use]
    pub fn help_text(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The reason with all causes below it, in one line.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut text = self.0.reason.clone();
        let mut below = self.source();
        while let Some(cause) = below {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            below = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { stage, subject, reason, .. } = &*self.0;
        match (stage, subject.is_empty()) {
            (Stage::Start, true) => f.write_str(reason),
            (Stage::Start, false) => write!(f, "{subject}: {reason}"),
            (_, true) => write!(f, "{stage}: {reason}"),
            (_, false) => write!(f, "{stage} of {subject}: {reason}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.code())?;
        if let Some(source) = self.source() {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// The host's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
