//! midair.
pub mod attempt;
#[cfg(feature = "dev")]
pub mod build;
#[cfg(feature = "dev")]
pub mod command;
#[cfg(feature = "dev")]
pub mod dev;
pub mod error;
pub mod event;
#[cfg(feature = "dev")]
pub mod run;
#[cfg(feature = "dev")]
pub mod watch;

