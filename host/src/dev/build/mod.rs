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
//! | `package`, `made_of` | what is a plugin made of, as a build named it? |
//! | `distrust` | which packages has cargo to build anew, whatever their stamps say? |
//! | `staleness` | would cargo miss this edit? |
//! | `record` | which contents did cargo last build? |
//!
//! # Where cargo runs and builds
//!
//! In the folder where the project is found if that lies in the plugin's workspace, else in the workspace's root, so that the toolchain
//! file and `.cargo/config.toml` hold that a `cargo build` there takes; once for each workspace; into `midair` below the workspace's
//! target folder, so that it never waits for the lock of a `cargo build` of one's own. Folders set by `build.build-dir` are put there
//! too. Plugins whose libraries have one name are built into folders of their own: in one, each would replace the other.
//!
//! # Limitations
//!
//! Paths in cargo arguments are relative to the folder where cargo runs. What only a build knows to be a part (a crate replaced through
//! `[patch]`, a dependency below a workspace that doesn't list it) is watched from the first build on. A process that leaves its group
//! (a compiler cache's server) isn't killed with the build.

mod cargo;
mod distrust;
mod made_of;
mod messages;
mod package;
mod project;
mod record;
mod staleness;
mod surroundings;
#[cfg(test)]
pub(crate) mod tests;

pub use cargo::Cancel;
pub use messages::Diagnostic;
pub use package::Package;
pub use project::{Options, Product, Project, Sources};
