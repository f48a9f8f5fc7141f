//! What is live, what was, and what could be again?
//!
//! Generations, the snapshots that they serve in, the slot, the calls in flight, and the rules by which a generation is committed or goes back. Nothing
//! here stores into the slot on its own account.

pub(crate) mod comparison;
pub(crate) mod config;
pub(crate) mod generation;
pub(crate) mod lease;
pub mod probation;
pub(crate) mod refusal;
pub(crate) mod resident;
pub(crate) mod rollout;
pub(crate) mod route;
pub(crate) mod slot;
pub(crate) mod snapshot;
pub(crate) mod urgency;
