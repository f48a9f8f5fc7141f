//! midair.
pub mod attempt;
#[cfg(feature = "cli")]
pub mod cli;
pub mod commands;
pub mod error;
pub mod event;
#[cfg(feature = "http")]
pub mod http;
