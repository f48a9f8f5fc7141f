//! Which cargo command makes the artifacts, and what did it say?
//!
//! cargo knows best what a plugin is made of and what has to be compiled; this room asks it and translates. It knows nothing of how
//! changes are noticed and nothing of what becomes of an artifact.
//!
//! | part | question |
//! |---|---|
//! | `surroundings` | what of our own environment may cargo see? |
//! | `project` | which packages are plugins, and what are they made of? |
//! | `cargo` | how does one cargo process run, end, or get killed? |
//! | `messages` | what did it say? |
//! | `staleness` | would cargo miss this edit? |
//!
//! # Where cargo runs and builds
//!
//! In the root of the plugin's workspace, so that its toolchain file and `.cargo/config.toml` hold; once for each workspace; into
//! `midair` below the workspace's target folder, so that it never waits for the lock of a `cargo build` of one's own. Folders set by
//! `build.build-dir` are put there too.
//!
//! # Limitations
//!
//! Paths in cargo arguments are relative to the workspace's root. A crate replaced through `[patch]` is watched by the files that
//! the last build listed, so that a new file in it is seen only together with an edit that names it. A process that leaves its group
//! (a compiler cache's server) isn't killed with the build.

mod cargo;
mod messages;
mod project;
mod staleness;
mod surroundings;
#[cfg(test)]
pub(crate) mod tests;

pub use cargo::Cancel;
pub use messages::Diagnostic;
pub use project::{Options, Package, Product, Project, Sources};
