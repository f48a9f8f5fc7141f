//! What do a host and its probe say to each other?
//!
//! One line of JSON each, over a socket that is the child's alone: what the plugin prints goes elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::live::config::Section;
use crate::report::error::{Code, Error, Stage};

/// What is to be tried, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The private copy.
    pub path: PathBuf,
    /// The plugin's name.
    pub plugin: String,
    /// The number that it will have.
    pub number: u64,
    /// blake3 of its bytes, in hex.
    pub digest: String,
    /// Whether the host is a development host.
    pub dev: bool,
    /// For each step.
    pub deadline: Duration,
    /// The plugin's section of the config, as it will be published with.
    pub config: Section,
}

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    /// Which program it is. Comes first.
    Program(String),
    /// A step begins; `what` reads well before "took too long".
    Begins { stage: Stage, what: String },
    /// The plugin logged a line.
    Log { level: String, message: String },
    /// Every step went well.
    Passed,
    /// A step didn't.
    Failed(Fault),
}

/// An error without what can't cross.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    code: Code,
    stage: Stage,
    subject: String,
    reason: String,
    help: Option<String>,
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let (subject, help) = (error.subject().to_owned(), error.help_text().map(str::to_owned));
        Self { code: error.code(), stage: error.stage(), subject, reason: error.reason(), help }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let Fault { code, stage, subject, reason, help } = fault;
        let error = Error::rejected(code, stage, subject, format!("{reason} (found in the probe)"));
        match help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

/// A line for the other side.
pub(super) fn line(said: &impl Serialize) -> Vec<u8> {
    // Neither type can fail to be written, a path that is no text excepted: the other side takes an empty line for what it is.
    let mut line = serde_json::to_vec(said).unwrap_or_default();
    line.push(b'\n');
    line
}
