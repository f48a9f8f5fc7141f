//! midair.
pub mod attempt;
pub mod error;
pub mod event;
