//! Which bytes don't come back by themselves, and why?

use serde::{Deserialize, Serialize};

/// Why bytes are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// Somebody asked for a rollback.
    Hand,
    /// They did worse than the bytes before.
    Breach,
    /// The host died while they were on trial.
    Crash,
}

/// Bytes that aren't published again by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// blake3 of the artifact, in hex.
    pub digest: String,
    /// Who or what has it held.
    pub by: HoldReason,
    /// What happened, in a few words.
    pub reason: String,
}
