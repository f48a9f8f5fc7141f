//! How is midair tested as its users meet it: through the real binary, real builds, real files and real sockets?
//!
//! A test makes a [`Project`](project::Project), starts a [`Midair`](host::Midair) on it, edits files, waits for the event that says what
//! came of it, and asks the host with a [`Client`](client::Client). Nothing here links the host, so that nothing here can look behind
//! its contract.
//!
//! | room | question |
//! |---|---|
//! | [`repository`] | where is what we test? |
//! | [`cargo`] | how are things built, and once only? |
//! | [`project`] | what does a user edit? |
//! | [`fixture`] | which plugins are there already? |
//! | [`host`] | what does a running midair say? |
//! | [`client`] | what does it answer? |
//! | [`socket`] | what does somebody get who talks over a WebSocket? |
//! | [`browser`] | what does a real browser make of a page? |
//! | [`asker`] | what does somebody get who keeps asking? |
//! | [`soak`] | what is lost, mixed or leaked over many swaps? |
//! | [`edit_to_live`] | how long does a user wait, and how long would cargo alone take? |
//! | [`probe_cost`] | what does the trial in a child process add to a swap? |
//! | [`rollback_time`] | how long does going back take, as its clients see it? |
//! | [`random`] | what is drawn at random, and is the same in each run? |
//! | [`sources`] | which files of a crate name which others? |
//! | [`statistics`] | what do measured times say? |
//!
//! # Limitations
//!
//! All waiting is for an event, with [`patience`] as the end of it: that is no promise about time.

pub mod asker;
pub mod browser;
pub mod cargo;
pub mod client;
pub mod edit_to_live;
pub mod fixture;
pub mod host;
pub mod probe_cost;
pub mod project;
pub mod random;
pub mod repository;
pub mod rollback_time;
pub mod soak;
pub mod socket;
pub mod sources;
pub mod statistics;

use std::time::Duration;

/// After this a test gives up: a build from nothing on a busy machine of two cores takes a fraction of it.
///
/// Built with `MIDAIR_IMPATIENT` set, tests fail sooner: for who writes them.
pub const PATIENCE: Duration = Duration::from_secs(if option_env!("MIDAIR_IMPATIENT").is_some() { 25 } else { 180 });

/// [`PATIENCE`], or the seconds that `MIDAIR_PATIENCE` says: for whoever runs a test to see it fail.
#[must_use]
pub fn patience() -> Duration {
    let said = std::env::var("MIDAIR_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    said.map_or(PATIENCE, Duration::from_secs)
}

/// How much of what could go on for long: `full` where `tests/long` asks for it, else `usual`, which shows the same with less.
#[must_use]
pub fn size<T>(usual: T, full: T) -> T {
    if is_full() { full } else { usual }
}

/// Whether `tests/long` runs this test at its full size.
#[must_use]
pub fn is_full() -> bool {
    std::env::var("MIDAIR_SIZE").is_ok_and(|size| size == "full")
}
