//! How do edits become swaps?
//!
//! Watching, building, and the two loops: from sources, and from artifacts. It uses the host as any custom host can.

mod askers;
pub mod build;
pub mod command;
mod dev_loop;
mod endless;
#[cfg(test)]
mod odd_projects;
mod retry_groups;
pub mod run_loop;
pub mod watch;

pub use dev_loop::run;
